#!/usr/bin/env python3
"""Write the two pod images as OCI archives, without a registry.

usage: make_images.py OUT_DIR BUSYBOX PAUSE ECHOD PREFIX
"""
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Tar:
    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w")

    def directory(self, name, mode=0o755):
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, mode
        self.tar.addfile(info)

    def file(self, name, data, mode=0o644):
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), mode
        self.tar.addfile(info, io.BytesIO(data))

    def link(self, name, target):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
        self.tar.addfile(info)

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


def read(path):
    with open(path, "rb") as f:
        return f.read()


def pause_layer(pause):
    t = Tar()
    t.file("pause", read(pause), 0o755)
    return t.bytes()


def busybox_layer(busybox, echod):
    t = Tar()
    for name in ("bin", "etc", "root", "proc", "sys", "dev", "var", "usr", "usr/bin", "home"):
        t.directory(name)
    t.directory("tmp", 0o1777)
    t.file("bin/busybox", read(busybox), 0o755)
    t.file("bin/echod", read(echod), 0o755)
    for applet in subprocess.check_output([busybox, "--list"], text=True).split():
        if applet != "busybox":
            t.link("bin/" + applet, "busybox")
    t.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    t.file("etc/group", b"root:x:0:\nnobody:x:65534:\n")
    return t.bytes()


def write_image(path, name, layer, run):
    blobs = {}

    def put(media_type, data):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}

    run = dict(run, Env=["PATH=/bin:/usr/bin"])
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created_by": "mykube"}],
    }
    manifest = put(MANIFEST, json.dumps({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(CONFIG, json.dumps(config).encode()),
        "layers": [put(LAYER, gzip.compress(layer, mtime=0))],
    }).encode())
    manifest["platform"] = {"os": "linux", "architecture": "amd64"}
    manifest["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.split(":")[-1],
    }
    t = Tar()
    t.file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    t.file("index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode())
    for digest, data in blobs.items():
        t.file("blobs/sha256/" + digest, data)
    with open(path, "wb") as f:
        f.write(t.bytes())


def main():
    out, busybox, pause, echod, prefix = sys.argv[1:]
    write_image(out + "/pause.tar", prefix + "/pause:1", pause_layer(pause), {"Entrypoint": ["/pause"]})
    write_image(out + "/busybox.tar", prefix + "/busybox:1", busybox_layer(busybox, echod),
                {"Cmd": ["sh"], "WorkingDir": "/"})


main()
