"""What stands before the routes, from the outside in.

`request_scope` (an id and a record for each request, and an answer whatever happens), `lifecycle` (loading,
draining), `access` (keys), `limits` (bodies).
"""
