"""make_image.py BINARY NAME OUT: an OCI archive with a program, the libraries ldd names, and CA certificates."""
import gzip
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile

IMAGE = "application/vnd.oci.image."
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
USER = 65532
ETC = {
    "etc/passwd": f"root:x:0:0:root:/root:/none\nmykube:x:{USER}:{USER}:mykube:/:/none\n",
    "etc/group": f"root:x:0:\nmykube:x:{USER}:\n",
    # Names of a pod's own hosts file, then DNS.
    "etc/nsswitch.conf": "hosts: files dns\n",
}


def add(tar, name, data=None, mode=0o755):
    """A file, or a directory where there is no data. Always the same bytes: no times, no owners."""
    info = tarfile.TarInfo(name)
    info.mode = mode
    if data is None:
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    else:
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def read(path):
    with open(path, "rb") as file:
        return file.read()


def libraries(binary):
    """Where the dynamic linker will look for each, and the linker itself."""
    done = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False)
    if "not a dynamic executable" in done.stderr + done.stdout or "statically linked" in done.stdout:
        return []
    if done.returncode != 0 or "not found" in done.stdout:
        sys.exit(f"make_image.py: ldd {binary} says: {(done.stdout + done.stderr).strip()}")
    return sorted(set(re.findall(r"(/\S+) \(0x", done.stdout)))


def layer(binary):
    files = {"usr/bin/mykube": (read(binary), 0o755), CERTIFICATES[1:]: (read(CERTIFICATES), 0o644)}
    files |= {name: (text.encode(), 0o644) for name, text in ETC.items()}
    files |= {path[1:]: (read(path), 0o755) for path in libraries(binary)}
    directories = {"run", "proc", "sys", "dev"}
    for name in files:
        while name := os.path.dirname(name):
            directories.add(name)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in sorted(directories):
            add(tar, name)
        add(tar, "tmp", mode=0o1777)
        for name, (data, mode) in sorted(files.items()):
            add(tar, name, data, mode)
    return buffer.getvalue()


def archive(name, content):
    machine = platform.machine()
    target = {"os": "linux", "architecture": ARCHITECTURES.get(machine, machine)}
    blobs = {}

    def put(kind, data):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": IMAGE + kind, "digest": "sha256:" + digest, "size": len(data)}

    config = target | {
        "config": {"Entrypoint": ["/usr/bin/mykube"], "User": f"{USER}:{USER}", "Env": ["PATH=/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
        "history": [{"created_by": "scripts/image"}],
    }
    manifest = put("manifest.v1+json", json.dumps({
        "schemaVersion": 2,
        "mediaType": IMAGE + "manifest.v1+json",
        "config": put("config.v1+json", json.dumps(config).encode()),
        "layers": [put("layer.v1.tar+gzip", gzip.compress(content, compresslevel=1, mtime=0))],
    }).encode())
    manifest |= {"platform": target, "annotations": {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rsplit(":", 1)[-1],
    }}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644)
        add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode(), 0o644)
        for digest, data in blobs.items():
            add(tar, "blobs/sha256/" + digest, data, 0o644)
    return buffer.getvalue()


def main():
    binary, name, out = sys.argv[1:]
    if ":" not in name.rsplit("/", 1)[-1]:
        sys.exit(f"make_image.py: {name} needs a tag: {name}:TAG")
    content = archive(name, layer(binary))
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    with open(out, "wb") as file:
        file.write(content)


if __name__ == "__main__":
    main()
