"""Check the files of the pages on deployment: units of systemd, Compose, Kubernetes, Procfile."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

from django.core.management import load_command_class

from .support import pages
from .support.requirements import find, require
from .support.sites import PACKAGE

SYSTEMD = ["howto/deployment/asgi/systemd.txt", "addon/tutorial/4-deploy.txt"]
COMPOSE, KUBERNETES = "addon/deploy/compose.txt", "addon/deploy/kubernetes.txt"
PAAS = "addon/deploy/paas.txt"

#: The fields of Kubernetes' objects that the page uses, by the field that they are in (API v1, apps/v1).
FIELDS = {
    "": "apiVersion kind metadata spec",
    "metadata": "name labels",
    "spec": "replicas selector strategy template terminationGracePeriodSeconds containers ports",
    "strategy": "rollingUpdate type",
    "rollingUpdate": "maxSurge maxUnavailable",
    "template": "metadata spec",
    "containers": "name image command args ports envFrom livenessProbe readinessProbe startupProbe "
    "lifecycle",
    "ports": "containerPort name port targetPort",
    "envFrom": "secretRef",
    "secretRef": "name",
    "lifecycle": "preStop",
    "preStop": "exec",
    "exec": "command",
    "tcpSocket": "port",
    "httpGet": "path port httpHeaders",
    "httpHeaders": "name value",
}
PROBE = "exec httpGet tcpSocket periodSeconds timeoutSeconds failureThreshold"
FIELDS.update(livenessProbe=PROBE, readinessProbe=PROBE, startupProbe=PROBE)
FREE = {"matchLabels", "labels", "selector"}

SERVICE = (
    "image build command environment ports restart stop_grace_period depends_on deploy volumes"
)
SERVICE += " healthcheck"


def files(name, language):
    """Return the files of one language on a page, by path. Skips the test without the page."""
    if not pages.page_exists(name):
        raise unittest.SkipTest("the page is the add-on's")
    return {
        pages.path_of(text): text
        for kind, text in pages.blocks(name)
        if kind == language and pages.path_of(text)
    }


def require_yaml():
    """Return PyYAML; skip the test without it, and on a Python that isn't tested with it."""
    if sys.version_info < (3, 10):
        raise unittest.SkipTest("read on Python 3.10 and later")
    require("yaml")
    import yaml

    return yaml


def unknown_fields(value, inside=""):
    """Yield the path of each field that Kubernetes doesn't have where it stands."""
    if isinstance(value, list):
        for each in value:
            yield from unknown_fields(each, inside)
    elif isinstance(value, dict):
        for name, content in value.items():
            free = inside in FREE and "matchLabels" not in value
            if not free and name not in FIELDS.get(inside, "matchLabels").split():
                yield inside + "." + name
            yield from unknown_fields(content, name)


class DeploymentPageTests(unittest.TestCase):
    def check_runworker(self, words):
        parser = load_command_class(PACKAGE, "runworker").create_parser("manage.py", "runworker")
        return parser.parse_args(words[words.index("runworker") + 1 :])

    def check_uvicorn(self, words):
        require("uvicorn")
        from uvicorn.main import main

        options = {option for each in main.params for option in each.opts + each.secondary_opts}
        for word in words:
            if word.startswith("--"):
                self.assertIn(word.split("=")[0], options)
        self.assertIn("mysite.asgi:channel_layer", words)

    def check_command(self, words):
        if "runworker" in words:
            return self.check_runworker(words)
        return self.check_uvicorn(words)

    def test_each_command_of_uvicorn_refuses_compression(self):
        """The gateway refuses it, too, but not on a connection that is older than itself."""
        seen, without = 0, []
        for folder, _, names in os.walk(pages.DOCS):
            for name in sorted(names):
                page = os.path.relpath(os.path.join(folder, name), pages.DOCS)
                for kind, text in pages.blocks(page) if name.endswith(".txt") else []:
                    # A block of "text" is a diagram.
                    if kind in ("console", "ini", "yaml", "sh"):
                        text = text.replace("\\\n", " ")
                        commands = re.findall(r"uvicorn[\"', ].*channel_layer", text)
                        refusals = re.findall(r"--ws-per-message-deflate[ =]false", text)
                        seen += len(commands)
                        if len(commands) != len(refusals):
                            without.append((page, commands))
        self.assertEqual(without, [])
        self.assertGreater(seen, 0)

    def test_units_of_systemd(self):
        units = {}
        for name in SYSTEMD:
            if pages.page_exists(name):
                units.update(files(name, "ini"))
        self.assertGreaterEqual(len(units), 2)
        for path, text in units.items():
            text = text.replace("\\\n", " ")
            (command,) = re.findall("^ExecStart=(.*)$", text, re.M)
            options = self.check_command(shlex.split(command))
            if "runworker" in command:
                (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)
                self.assertGreater(int(stop), options.grace, path)

    def test_systemd_knows_each_line_of_the_units(self):
        require("systemd-analyze")
        for name in filter(pages.page_exists, SYSTEMD):
            for path, text in files(name, "ini").items():
                with tempfile.TemporaryDirectory() as folder:
                    unit = os.path.join(folder, os.path.basename(path))
                    # The program and the user are those of another machine.
                    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M)
                    text = re.sub(r"^(User|Group)=.*", r"\1=root", text, flags=re.M)
                    with open(unit, "w") as out:
                        out.write(text)
                    done = subprocess.run(
                        [find("systemd-analyze"), "verify", "--man=no", unit],
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                    )
                    said = done.stdout.decode()
                    about = [line for line in said.split("\n") if os.path.basename(path) in line]
                    self.assertEqual(about, [], path)

    def test_kubernetes_manifests(self):
        yaml = require_yaml()

        manifests = files(KUBERNETES, "yaml")
        self.assertEqual(sorted(manifests), ["server.yaml", "worker.yaml"])
        for path, text in manifests.items():
            for each in yaml.safe_load_all(text):
                self.assertEqual(list(unknown_fields(each)), [], path)
                if each["kind"] == "Deployment":
                    self.check_deployment(each["spec"])

    def check_deployment(self, spec):
        labels = spec["template"]["metadata"]["labels"]
        self.assertEqual(spec["selector"]["matchLabels"], labels)
        pod = spec["template"]["spec"]
        for container in pod["containers"]:
            options = self.check_command(container["command"] + container["args"])
            if options is not None:
                self.assertGreater(pod["terminationGracePeriodSeconds"], options.grace)
            for name, probe in container.items():
                if name.endswith("Probe"):
                    self.assertEqual(len({"exec", "httpGet", "tcpSocket"} & set(probe)), 1)

    def test_the_compose_file(self):
        yaml = require_yaml()

        (text,) = files(COMPOSE, "yaml").values()
        compose = yaml.safe_load(text)
        services = compose["services"]
        for name, service in services.items():
            self.assertEqual(set(service) - set(SERVICE.split()), set(), name)
            self.assertLessEqual(set(service.get("depends_on", ())), set(services), name)
            for volume in service.get("volumes", ()):
                self.assertIn(volume.split(":")[0], compose["volumes"])
        self.check_uvicorn(shlex.split(services["server"]["command"]))
        options = self.check_runworker(shlex.split(services["worker"]["command"]))
        self.assertGreater(int(services["worker"]["stop_grace_period"].rstrip("s")), options.grace)

    def test_the_procfile(self):
        (procfile,) = [text for path, text in files(PAAS, "text").items() if path == "Procfile"]
        lines = dict(line.split(": ", 1) for line in procfile.split("\n")[1:] if line)
        self.assertEqual(sorted(lines), ["release", "web", "worker"])
        (script,) = [text for path, text in files(PAAS, "sh").items() if path == lines["web"][3:]]
        words = shlex.split(script.replace("\\\n", " "), comments=True)
        self.assertEqual(words[0], "exec")  # so that uvicorn gets the platform's SIGTERM
        self.check_uvicorn(words)
        self.check_runworker(shlex.split(lines["worker"]))
