"""Routes: each reads its request, calls one function below, and writes the answer. No SQL, no rules of the domain."""
