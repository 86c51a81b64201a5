"""An emulator of Google's side of GKE, for the stand: what the unmodified Google provider asks, and nothing more.

It is no Google: it bills nobody, knows one project's worth of clusters, and keeps them in memory. What it hands out as
a cluster's endpoint is the stand's real Kubernetes, so that everything after RUNNING is real.

    clusters.py    clusters and operations as they come and go, and the faults that it can be told to have
    emulator.py    all of it behind one port
    door.py        which server a connection is for, by its TLS greeting
    manager.py     google.container.v1.ClusterManager over gRPC, with the message classes of google.cloud.container_v1
    rest.py        REST over HTTPS: routes, who calls, refusals (refusal.py) in Google's words
    projects.py    the project: permissions, and which APIs are enabled
    iam_credentials.py  tokens of accounts that are impersonated
    compute.py     quotas, zones, machine types
    residue.py     load balancers, addresses and disks, which deleting a cluster leaves
    artifacts.py   repositories of images
    registry.py    a registry that lets nobody in without a token: Distribution's token server
    identity.py    a service account's key, and a certificate for a universe of our own
    tokens.py      who a bearer token is: for itself, and for the API server's token webhook
    control.py     the HTTP API by which a test tells it to misbehave
    names.py       names that the program and the stand both know
    part.py        the emulator as a part of the stand
"""
