"""Admission: mutating and validating webhooks, ValidatingAdmissionPolicies, and the rules that select them."""
