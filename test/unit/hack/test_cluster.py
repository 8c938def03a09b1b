"""Parts of hack/cluster that need neither root nor a container runtime."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from hack.cluster import Unavailable, identities, image_archive, network, node, prerequisites
from hack.cluster.layout import ADDRESS, Layout
from hack.cluster.node import NodeOptions
from hack.cluster.processes import Processes, Record, start_time


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout("node-1", tmp_path)
    layout.make_folders()
    return layout


def write_record(layout: Layout, name: str, content: str) -> None:
    (layout.pids / name).write_text(content)


def test_running_process_is_recognized_by_its_start_time(layout: Layout) -> None:
    processes = Processes(layout)
    write_record(layout, "kubelet", f"{os.getpid()} {start_time(os.getpid())}\n")
    assert processes.running() == {"kubelet": os.getpid()}


def test_process_id_that_was_reused_does_not_count_as_running(layout: Layout) -> None:
    processes = Processes(layout)
    write_record(layout, "kubelet", f"{os.getpid()} 1\n")
    assert not processes.is_running("kubelet")
    processes.stop("kubelet")  # this process would end here if the start time were not compared
    assert processes.record("kubelet") is None


@pytest.mark.parametrize("content", ["", "abc\n", "12\n"])
def test_damaged_record_is_a_process_that_does_not_run(layout: Layout, content: str) -> None:
    write_record(layout, "etcd", content)
    assert not Processes(layout).is_running("etcd")


def test_stop_ends_the_process_and_removes_its_record(layout: Layout) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        write_record(layout, "etcd", f"{child.pid} {start_time(child.pid)}\n")
        processes = Processes(layout)
        processes.stop("etcd")
        assert processes.running() == {}
        assert processes.record("etcd") is None
    finally:
        child.kill()
        child.communicate()


def test_start_time_of_a_process_that_does_not_exist_is_none() -> None:
    assert start_time(2**22 + 1) is None
    assert not Record(2**22 + 1, 5).is_alive


def test_kubelet_certificate_names_its_node_and_follows_a_new_name(layout: Layout) -> None:
    identities.issue(layout)
    authority = (layout.certificates / "ca.crt").read_bytes()
    for name in ("node-1", "aks-gpu-0"):
        identities.issue_kubelet(layout, name)
        client = x509.load_pem_x509_certificate((layout.certificates / "kubelet.crt").read_bytes())
        assert client.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == f"system:node:{name}"
        assert client.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
        client.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    identities.issue(layout)
    assert (layout.certificates / "ca.crt").read_bytes() == authority


def test_kubeconfigs_and_keys_are_readable_by_their_owner_only(layout: Layout) -> None:
    identities.issue(layout)
    for path in (layout.kubeconfig, layout.certificates / "ca.key", layout.certificates / "admin.key"):
        assert path.stat().st_mode & 0o077 == 0
    document = yaml.safe_load(layout.kubeconfig.read_text())
    assert document["clusters"][0]["cluster"]["server"] == f"https://{ADDRESS}:6443"


def test_kubelet_registers_with_the_identity_of_an_instance(layout: Layout) -> None:
    options = NodeOptions("aks-gpu-0", {"a": "b"}, ("sku=gpu:NoSchedule",), "azure:///x/0")
    document = yaml.safe_load(node.write_configuration(layout, options).read_text())
    assert document["registerWithTaints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    assert document["providerID"] == "azure:///x/0"
    assert "providerID" not in yaml.safe_load(node.write_configuration(layout, NodeOptions()).read_text())


def test_system_node_shares_the_cluster_but_no_file_port_or_pod_address(layout: Layout) -> None:
    system = layout.system
    assert (system.kubeconfig, system.certificates, system.namespace_file) == (
        layout.kubeconfig,
        layout.certificates,
        layout.namespace_file,
    )
    own = ("node_name", "node_address", "node_pods", "pod_bridge", "node_state", "containerd_socket", "kubelet")
    assert all(getattr(system, name) != getattr(layout, name) for name in own)
    system.make_folders()
    identities.issue(layout)
    for each in (layout, system):
        identities.issue_kubelet(each, each.node_name)
        document = yaml.safe_load(node.write_configuration(each, NodeOptions()).read_text())
        assert document["address"] == document["healthzBindAddress"] == each.node_address
        server = x509.load_pem_x509_certificate(Path(document["tlsCertFile"]).read_bytes())
        alternatives = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert str(alternatives.get_values_for_type(x509.IPAddress)[0]) == each.node_address


def test_image_archive_is_an_oci_layout_with_matching_digests() -> None:
    target = io.BytesIO()
    image_archive.write(target, "node.local/x:1", {"x": b"program"}, ["/x"])
    target.seek(0)
    with tarfile.open(fileobj=target) as archive:
        index = json.load(archive.extractfile("index.json") or io.BytesIO())
        entry = index["manifests"][0]
        assert entry["annotations"] == {"io.containerd.image.name": "node.local/x:1"}
        manifest = json.load(archive.extractfile(f"blobs/sha256/{entry['digest'][7:]}") or io.BytesIO())
        layer = manifest["layers"][0]
        with tarfile.open(fileobj=archive.extractfile(f"blobs/sha256/{layer['digest'][7:]}")) as content:
            program = content.getmember("x")
            assert program.mode == 0o755
            assert program.size == len(b"program")


def test_machine_without_the_packages_gets_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_name: str) -> None:
        return None

    monkeypatch.setattr("shutil.which", absent)
    monkeypatch.setattr(prerequisites, "cni_folder", lambda: None)
    with pytest.raises(Unavailable) as caught:
        prerequisites.check()
    message = str(caught.value)
    assert "\n" not in message
    assert "apt-get install --no-install-recommends" in message
    assert "containernetworking-plugins" in message
    assert "runc" in message


def test_machine_where_namespaces_are_forbidden_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def present(name: str) -> str:
        return f"/bin/{name}"

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", present)
    monkeypatch.setattr(prerequisites, "cni_folder", lambda: Path("/usr/lib/cni"))
    monkeypatch.setattr(network, "can_create", lambda: False)
    assert any("network namespaces" in line for line in prerequisites.obstacles())
