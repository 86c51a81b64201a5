"""What could be attacked, who might, what stops it, and the test that shows it: the table of docs/security.md is made of this list."""

THREATS = (  # asset, who might, what stops it, test
    ("the worker's files, environment and network", "a SavedModel archive, a checkpoint", "the exporter shuts itself in", "include/test_sandbox.py::test_process_that_is_shut_in_reads_its_input_and_writes_its_folder"),
    ("the worker's files and environment", "a model on a kernel without Landlock", "archives and HDF5 are refused", "include/test_sandbox.py::test_programs_and_old_formats_need_a_sandbox"),
    ("Airflow's secrets", "a model", "an allow-list of variables", "slipway/model/test_exporter.py::test_programs_get_no_secret_of_the_worker"),
    ("the Hub's token", "a model", "only the process that fetches has it", "slipway/model/test_exporter.py::test_only_the_fetcher_gets_the_token"),
    ("the model server's files", "a graph that reads or writes files", "a list of operations", "include/test_hostile_models.py::test_model_only_computes_on_its_own_files"),
    ("the worker's files", "HDF5 that takes data from another file", "links and external storage are refused", "include/test_hostile_models.py::test_hostile_weights_are_refused_even_where_the_format_is_allowed"),
    ("what the revision's hash covers", "an index that names a file elsewhere", "names of files next to it only", "include/test_sources.py::test_index_names_only_files_next_to_it"),
    ("the worker's memory, processor and disk", "a model", "`export.limits`", "slipway/model/test_exporter.py::test_ended_if_it_exceeds_a_limit"),
    ("the worker's memory", "a small archive with a large header", "headers of at most 1 MiB", "include/test_sources.py::test_large_header_costs_no_memory"),
    ("the worker's disk", "an archive that unpacks to more", "`export.limits.disk_mib`", "include/test_sources.py::test_archive_has_a_size"),
    ("the worker's disk", "a server that sends without end", "`export.limits.download_mib`", "include/test_download.py::test_download_has_a_size"),
    ("a machine's own credentials", "a URL of a model file, a redirect", "link-local addresses are refused", "include/test_download.py::test_link_local_address_is_refused"),
    ("a machine's own credentials", "a golden image's URL", "link-local addresses are refused", "slipway/model/test_golden_images.py::test_refused_if_a_golden_url_is_link_local"),
    ("servers that only the worker reaches", "a redirect of an archive", "redirects stay on their host", "include/test_download.py::test_redirect_stays_on_its_host"),
    ("servers that only the worker reaches", "a redirect of a golden image", "redirects stay on their host", "slipway/model/test_golden_images.py::test_refused_if_a_golden_url_leads_elsewhere"),
    ("the engine's network", "the tested model's server", "a network without a way back", "e2e/test_smoke_network.py::test_the_smoke_tests_server_has_no_way_out"),
    ("a registry's login", "a model file that names another registry", "a login is for its connection's host", "slipway/image/test_registry.py::test_the_login_of_another_registry_is_not_sent"),
    ("a registry's login", "a registry's challenge", "token servers of a list, or `login_hosts`", "slipway/image/test_registry.py::test_refused_if_the_token_server_is_another_host"),
    ("a registry's login", "a redirect to a blob's storage", "only the registry itself is answered", "slipway/image/test_registry.py::test_a_blobs_storage_gets_no_login"),
    ("a Google token", "an image name", "only Artifact Registries get it", "slipway/image/test_registry_login.py::test_refused_if_the_repository_is_elsewhere"),
    ("a Google key", "a redirect of the token server", "no redirects", "slipway/test_bounded_requests.py::test_no_redirect_is_followed"),
    ("any connection's password", "a model file that names it in another field", "types of connections", "slipway/test_connections.py::test_refused_if_the_connection_is_of_another_type"),
    ("the Hub's token", "a redirect, a connection for another host", "the host of HF_ENDPOINT only", "slipway/model/test_hub.py::test_no_redirect_to_another_host_is_followed"),
    ("a connection's password", "a model file that names it for a Prometheus", "it goes to the connection's own host only", "slipway/serving/test_prometheus.py::test_a_connection_without_a_host_or_of_another_type_is_refused"),
    ("a URL's signature or login", "readers of logs, XCom, records, images", "plain URLs; logins are refused", "slipway/journeys/test_canaries.py::test_no_canary_is_left_by_a_good_run"),
    ("the worker's network", "an overlay with a remote base", "rendering is offline", "slipway/kubernetes/test_overlay_files.py::test_a_base_elsewhere_is_refused_and_never_asked_for"),
    ("the worker's files", "an overlay's link or absolute path", "files below include/manifests only", "slipway/kubernetes/test_overlay_files.py::test_a_link_that_leaves_the_manifests_is_refused"),
    ("the worker's secrets", "kustomize", "an environment of its own", "slipway/kubernetes/test_overlay_files.py::test_kustomize_gets_nothing_of_the_workers_environment"),
    ("rights in the cluster", "an overlay's bindings and webhooks", "a list of kinds", "slipway/kubernetes/test_policy.py::test_no_variable_adds_rights_or_a_kind_of_the_whole_cluster"),
    ("other namespaces", "a kind that a Variable adds", "the API server says what is namespaced", "slipway/kubernetes/test_apply.py::test_a_cluster_scoped_object_is_refused"),
    ("the node", "an overlay's privileged pod", "Pod Security `restricted`", "slipway/kubernetes/test_policy.py::test_a_pod_with_power_over_the_node_or_the_cluster_is_refused"),
    ("the API server, and what was proven", "an overlay's token, account, or image by tag", "all are refused before the build", "slipway/kubernetes/test_policy.py::test_an_attack_is_refused_before_anything_is_built"),
    ("the login of Slipway's connection", "another process on the worker, while a preview is loaded", "one path of one Service is forwarded", "slipway/kubernetes/test_forward.py::test_another_path_is_not_forwarded"),
    ("the pods' gRPC port", "another process on the worker, while a preview is loaded over gRPC", "the address is on loopback and ends with the load", "slipway/kubernetes/test_port_forward.py::test_it_ends_with_its_block"),
    ("terminals, logs, records", "any text from outside with ESC or line ends", "one printable line", "slipway/test_hostile_messages.py::test_an_error_is_one_line"),
    ("the worker's memory and disk", "whoever writes to the store", "plain members only", "slipway/model/test_hostile_copies.py::test_any_members"),
    ("the exporter's process", "damaged weights, images, labels, settings", "refused in one line within a second", "include/test_hostile_files.py::test_damaged_files"),
    ("traffic to other addresses", "an overlay's Service", "`externalIPs` are refused", "slipway/kubernetes/test_policy.py::test_a_service_takes_no_traffic_of_other_addresses"),
    ("history and rollbacks", "whoever writes to the store", "damaged records are skipped", "slipway/records/test_hostile_records.py::test_any_damaged_record"),
    ("other repositories", "a registry that names odd tags", "OCI's form of tags and digests", "slipway/image/test_hostile_registry.py::test_any_answers"),
    ("the shell of whoever copies a command", "names in a cluster or a record", "quoted commands, and no shell of ours", "slipway/test_shell.py"),
    ("the Python environments", "a changed package index", "hashes, for the installer too", "local/builds/test_environments.py"),
    ("all of it", "known vulnerabilities of packages", "`make audit`", "local/commands/test_audit.py"),
    ("the stand's cluster", "its Airflow, and what runs there", "an account with the rights of a run", "local/parts/test_access.py::test_airflow_is_no_administrator_of_the_cluster"),
    ("the machine of the stand", "its neighbours", "everything listens on loopback", "local/test_listening.py"),
)  # fmt: skip


def render_threats():
    """The table of docs/security.md."""
    rows = [(asset, who, stops, f"`tests/{test}`") for asset, who, stops, test in THREATS]
    head = ("asset", "who might", "what stops it", "test")
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ("---",) * len(head), *rows)) + "\n"
