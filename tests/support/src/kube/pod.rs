//! What a Pod would run.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::Value;

/// What the one container of a Pod would run, so that a test can run it as a local process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCommand {
    /// The Pod's name.
    pub pod: String,
    /// The Pod's namespace.
    pub namespace: String,
    /// The service account that it runs as.
    pub service_account: String,
    /// The container's command; empty where the image says what to run.
    pub command: Vec<String>,
    /// The container's arguments, `$(VARIABLES)` replaced.
    pub args: Vec<String>,
    /// The container's environment, references to fields of the Pod replaced.
    pub env: BTreeMap<String, String>,
    /// The container's ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Paths of the HTTP probes by kind (`livenessProbe`, `readinessProbe`, `startupProbe`), each with its port.
    pub probes: BTreeMap<String, (String, u16)>,
}

impl PodCommand {
    /// This program with the Pod's arguments and environment, `program` standing for the image's own. Add the
    /// identity: [`ControlPlane::service_account_kubeconfig`] as the environment variable `KUBECONFIG`.
    pub fn to_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(self.command.iter().skip(1)).args(&self.args).envs(&self.env);
        command
    }

    /// With another value for a flag that the Pod's arguments have as `--flag=value`: two replicas on one machine
    /// cannot both listen on the same port. Panics if the flag is not there.
    #[must_use]
    pub fn with_flag(mut self, flag: &str, value: &str) -> Self {
        let prefix = format!("{flag}=");
        let found = self.args.iter_mut().find(|argument| argument.starts_with(&prefix));
        let Some(argument) = found else { panic!("the Pod's arguments have no {flag}: {:?}", self.args) };
        *argument = format!("{prefix}{value}");
        self
    }

    pub(super) fn of(pod: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let containers = list(&pod["spec"]["containers"]);
        let [container] = containers.as_slice() else { panic!("not one container but {}", containers.len()) };
        assert!(list(&container["envFrom"]).is_empty(), "envFrom is not understood: {container}");

        let mut env = BTreeMap::new();
        for variable in list(&container["env"]) {
            let value = match &variable["valueFrom"] {
                Value::Null => expand(&text(&variable["value"]), &env),
                source => field(pod, source),
            };
            env.insert(text(&variable["name"]), value);
        }
        let ports: BTreeMap<String, u16> = list(&container["ports"])
            .iter()
            .map(|port| (text(&port["name"]), number(&port["containerPort"])))
            .collect();
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].into_iter().filter_map(|kind| {
            let get = container[kind].get("httpGet")?;
            let port = get["port"].as_str().map_or_else(|| number(&get["port"]), |name| ports[name]);
            Some((kind.to_owned(), (text(&get["path"]), port)))
        });
        let words = |value: &Value| list(value).iter().map(|word| expand(&text(word), &env)).collect();
        Self {
            pod: text(&pod["metadata"]["name"]),
            namespace: text(&pod["metadata"]["namespace"]),
            service_account: text(&pod["spec"]["serviceAccountName"]),
            command: words(&container["command"]),
            args: words(&container["args"]),
            probes: probes.collect(),
            env,
            ports,
        }
    }
}

fn number(value: &Value) -> u16 {
    value.as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_else(|| panic!("{value} is no port"))
}

/// A field of the Pod that a variable refers to. Fields that only a node would fill in are empty.
fn field(pod: &Value, source: &Value) -> String {
    let path = source["fieldRef"]["fieldPath"].as_str();
    let path = path.unwrap_or_else(|| panic!("only fieldRef is understood, not {source}"));
    let pointer = format!("/{}", path.replace('.', "/"));
    pod.pointer(&pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Replaces `$(NAME)` by the variable of that name, as Kubernetes does; an unknown one stays, and `$$` stands for `$`.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            let unknown = || format!("$({name})");
            out.push_str(&env.get(name).cloned().unwrap_or_else(unknown));
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::expand;

    #[test]
    fn variables_are_replaced_as_kubernetes_does() {
        let env = BTreeMap::from([("NAME".to_owned(), "value".to_owned())]);
        let table = [
            ("--a=$(NAME)/$(NAME)", "--a=value/value"),
            ("$(OTHER)", "$(OTHER)"),
            ("$$(NAME) costs $5", "$(NAME) costs $5"),
            ("$(NAME", "$(NAME"),
        ];
        for (text, expanded) in table {
            assert_eq!(expand(text, &env), expanded, "{text}");
        }
    }
}
