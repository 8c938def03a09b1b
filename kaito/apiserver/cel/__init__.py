"""Common Expression Language: rules of CRDs and policies, the functions of the Kubernetes library, and values."""
