"""Authentication, RBAC authorization, privilege-escalation checks and the review APIs."""
