"""The audit: every criterion beside the oracle on one model and its images, in a folder."""

from prunedge.importance.audit.records import kept_audit
from prunedge.importance.audit.result import Audit, AuditRequest
from prunedge.importance.audit.run import audit

__all__ = ["Audit", "AuditRequest", "audit", "kept_audit"]
