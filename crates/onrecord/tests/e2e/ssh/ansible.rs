//! Ansible, as it comes, against two hosts: what it runs there is on the record, whichever way it takes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::process::{self, Finished};
use testkit::sshd::Sshd;

use super::{Place, place_with};

/// Each step of it says by itself which host it was on; the last one fails.
const PLAYBOOK: &str = r#"
- hosts: all
  gather_facts: false
  tasks:
    - name: exact
      raw: echo raw-on-{{ inventory_hostname }}
      changed_when: false
    - name: module
      command: echo module-on-{{ inventory_hostname }}
    - name: file
      copy: {content: "for {{ inventory_hostname }}\n", dest: "{{ far }}/copied", mode: "0640"}
    - name: fails
      raw: exit 7
      ignore_errors: true
"#;

/// Two hosts; the second one takes no terminals.
struct Fleet {
    place: Place,
    other: Sshd,
}

fn fleet() -> Fleet {
    let other = Sshd::start();
    let web2 = format!(
        "[connections.web2]\nkind = \"ssh\"\naddress = \"127.0.0.1:{port}\"\nuser = \"{user}\"\nkey = \"file:{key}\"\n\
         host_keys = [\"{host_key}\"]\nidentities = [\"agent:deployer\"]\n[ssh]\nnames = [\"127.0.0.1\"]\n",
        port = other.port(),
        user = other.user(),
        key = other.client_key().display(),
        host_key = other.host_key(),
    );
    Fleet { place: place_with("", "terminals = true\n", &web2), other }
}

impl Fleet {
    /// An inventory in which every host has these variables besides.
    fn inventory(&self, of_host: impl Fn(&str) -> String) -> PathBuf {
        let python = testkit::clients::python();
        let hosts = [("web1", self.place.host.home(), ""), ("web2", self.other.home(), " ansible_ssh_use_tty=false")];
        let lines = hosts.map(|(name, home, more)| {
            format!(
                "{name} {of} ansible_python_interpreter={python} ansible_remote_tmp={home}/ansible far={home}{more}\n",
                of = of_host(name),
                python = python.display(),
                home = home.display(),
            )
        });
        let file = self.place.path("inventory");
        fs::write(&file, lines.concat()).unwrap();
        file
    }

    fn run(&self, program: &str, pipelining: bool, arguments: &[&str]) -> Finished {
        let python = testkit::clients::python();
        let mut ansible = Command::new(python.with_file_name(program));
        ansible.env("HOME", self.place.home.path()).env("ANSIBLE_LOCALHOST_WARNING", "0");
        ansible.env("ANSIBLE_PIPELINING", pipelining.to_string()).env("ANSIBLE_NOCOLOR", "1");
        let path = format!("{}:{}", python.parent().unwrap().display(), std::env::var("PATH").unwrap());
        ansible.env("PATH", path).arg("-i").arg(self.place.path("inventory")).args(arguments);
        process::run_for(&mut ansible, "", Duration::from_secs(240))
    }

    /// A command and the playbook, with modules that are copied there and with modules that are piped in.
    fn all(&self) {
        fs::write(self.place.path("playbook.yaml"), PLAYBOOK).unwrap();
        let playbook = self.place.path("playbook.yaml").display().to_string();
        let said = self.run("ansible", false, &["all", "-m", "ping"]);
        assert!(said.status.success() && said.stdout.matches("\"pong\"").count() == 2, "{said:?}");
        for pipelining in [false, true] {
            let said = self.run("ansible-playbook", pipelining, &[&playbook]);
            assert!(said.status.success() && said.stdout.matches("failed=0").count() == 2, "{said:?}");
            assert!(said.stdout.matches("ignored=1").count() == 2, "{said:?}");
            for (name, home) in [("web1", self.place.host.home()), ("web2", self.other.home())] {
                let copied = home.join("copied");
                assert_eq!(fs::read_to_string(&copied).unwrap(), format!("for {name}\n"));
                fs::remove_file(copied).unwrap();
            }
        }
        let commands = self.place.commands();
        for name in ["web1", "web2"] {
            let here: Vec<&Value> = commands.iter().filter(|command| command["connection"] == name).collect();
            let exact = |text: &str| {
                let is = |command: &&&Value| command["text"].as_str().unwrap().trim_end() == text;
                let found: Vec<_> =
                    here.iter().filter(is).map(|command| (&command["status"], &command["code"])).collect();
                assert_eq!(found.len(), 2, "{name}, {text}: {commands:#?}");
                found
            };
            assert!(exact(&format!("echo raw-on-{name}")).iter().all(|told| *told == (&json!("ok"), &json!("0"))));
            assert!(exact("exit 7").iter().all(|told| *told == (&json!("error"), &json!("7"))));
            // A module is a program of its own: what it did, its output says.
            let ran = |command: &&&Value| {
                let output = self.place.gateway.cli(&["output", command["id"].as_str().unwrap(), "--stream", "stdout"]);
                command["via"] == "exec"
                    && command["status"] == "ok"
                    && output.stdout.contains(&format!(r#""cmd": ["echo", "module-on-{name}"]"#))
            };
            assert_eq!(here.iter().filter(ran).count(), 2, "{name}: {commands:#?}");
            let written = |command: &&&Value| {
                let text = command["text"].as_str().unwrap();
                command["via"] == "file" && text.starts_with("write ") && text.contains("/ansible/")
            };
            assert!(here.iter().filter(written).count() > 0, "{name}: {commands:#?}");
            assert!(here.iter().all(|command| command["identity"] == "agent:deployer"), "{commands:#?}");
            assert!(here.iter().all(|command| command["on_behalf_of"] == "human:bea"), "{commands:#?}");
            assert!(here.iter().all(|command| ["ok", "error"].contains(&command["status"].as_str().unwrap())));
        }
        assert!(self.place.gateway.verify().contains("ok"));
    }
}

#[test]
fn two_hosts_are_two_user_names() {
    let fleet = fleet();
    let (key, known) = (fleet.place.path("agent"), fleet.place.path("known_hosts"));
    fleet.inventory(|name| {
        format!(
            "ansible_host=127.0.0.1 ansible_port={port} ansible_user={name} ansible_ssh_private_key_file={key} \
             ansible_ssh_common_args='-F none -o IdentityAgent=none -o UserKnownHostsFile={known}'",
            port = fleet.place.gateway.ssh_port(),
            key = key.display(),
            known = known.display(),
        )
    });
    fleet.all();
}

#[test]
fn two_hosts_are_reached_by_way_of_the_gateway() {
    let fleet = fleet();
    let config = fleet.place.jumping();
    fleet.inventory(|_| format!("ansible_ssh_common_args='-F {} -J gateway'", config.display()));
    fleet.all();
}
