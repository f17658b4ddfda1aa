"""What wraps every request: access, security headers, the body limit, the request log."""
