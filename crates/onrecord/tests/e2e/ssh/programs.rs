//! Programs that use ssh, or speak it themselves, as they come.

use std::fs;
use std::process::Command;
use std::time::Duration;

use testkit::process;

use super::place_with;

#[test]
fn stock_programs_work_over_it() {
    // Ansible asks for terminals.
    let place = place_with("", "terminals = true\n", "");
    let far = place.host.home().join("far");
    fs::create_dir_all(&far).unwrap();
    let far = far.display().to_string();
    let ssh = place.client("ssh");
    let words = ssh.get_args().map(|word| format!("'{}'", word.to_str().unwrap()));
    let ssh = std::iter::once("ssh".to_owned()).chain(words).collect::<Vec<_>>().join(" ");
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree/one"), "one").unwrap();

    let mut rsync = Command::new("rsync");
    rsync.args(["-a", "-e", &ssh]).arg(place.path("tree")).arg(format!("web1@127.0.0.1:{far}/"));
    process::run(&mut rsync, "").expect_success("rsync");
    assert_eq!(fs::read_to_string(format!("{far}/tree/one")).unwrap(), "one");

    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.env("GIT_SSH_COMMAND", &ssh).env("HOME", place.home.path()).args(args);
        process::run(&mut git, "").expect_success("git")
    };
    let clone = place.path("clone").display().to_string();
    git(&["init", "-q", "--bare", &format!("{far}/repo.git")]);
    git(&["clone", "-q", &format!("web1@127.0.0.1:{far}/repo.git"), &clone]);
    fs::write(place.path("clone/file"), "text").unwrap();
    git(&["-C", &clone, "add", "file"]);
    git(&["-C", &clone, "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-q", "-m", "one"]);
    git(&["-C", &clone, "push", "-q", "origin", "HEAD"]);

    let python = testkit::clients::python();
    let (port, key, known) = (place.gateway.ssh_port(), place.path("agent"), place.path("known_hosts"));
    let paramiko = format!(
        r#"
import paramiko
client = paramiko.SSHClient()
client.load_host_keys({known:?})
client.connect("127.0.0.1", {port}, "web1", key_filename={key:?}, look_for_keys=False, allow_agent=False)
_, out, err = client.exec_command("echo paramiko; exit 4")
assert out.read() == b"paramiko\n" and out.channel.recv_exit_status() == 4
sftp = client.open_sftp()
with sftp.open("{far}/paramiko", "w") as file:
    file.write("from paramiko")
with sftp.open("{far}/paramiko") as file:
    assert file.read() == b"from paramiko"
client.close()
"#
    );
    process::run(Command::new(&python).arg("-"), &paramiko).expect_success("paramiko");
    let asyncssh = format!(
        r#"
import asyncio, asyncssh
async def main():
    async with asyncssh.connect("127.0.0.1", {port}, username="web1", client_keys=[{key:?}], known_hosts={known:?},
                                agent_path=None, config=[]) as connection:
        results = await asyncio.gather(*(connection.run(f"echo {{n}}; exit {{n % 3}}") for n in range(20)))
        for n, result in enumerate(results):
            assert (result.stdout, result.exit_status) == (f"{{n}}\n", n % 3), result
asyncio.run(main())
"#
    );
    process::run(Command::new(&python).arg("-"), &asyncssh).expect_success("asyncssh");

    let mut ansible = Command::new(python.with_file_name("ansible"));
    let inventory = place.path("inventory");
    fs::write(
        &inventory,
        format!(
            "web1 ansible_host=127.0.0.1 ansible_port={port} ansible_user=web1 ansible_ssh_private_key_file={}              ansible_ssh_common_args='-F none -o IdentityAgent=none -o UserKnownHostsFile={}'              ansible_python_interpreter={python} ansible_remote_tmp={far}/ansible\n",
            key.display(),
            known.display(),
            python = python.display(),
        ),
    )
    .unwrap();
    ansible.env("HOME", place.home.path()).env("ANSIBLE_LOCALHOST_WARNING", "0");
    ansible.env("PATH", format!("{}:{}", python.parent().unwrap().display(), std::env::var("PATH").unwrap()));
    ansible.arg("-i").arg(&inventory).args(["web1", "-m", "command", "-a", "echo from-ansible"]);
    let said = process::run_for(&mut ansible, "", Duration::from_secs(120));
    assert!(said.status.success() && said.stdout.contains("from-ansible"), "{said:?}");

    let commands = place.commands();
    let count = |part: &str| commands.iter().filter(|command| command["text"].as_str().unwrap().contains(part)).count();
    assert!(count("rsync --server") == 1, "{commands:#?}");
    assert!(count("git-upload-pack") == 1 && count("git-receive-pack") == 1, "{commands:#?}");
    let paramiko = commands.iter().find(|command| command["text"] == "echo paramiko; exit 4").unwrap();
    assert_eq!(paramiko["code"], "4");
    let codes: Vec<_> = (0..20)
        .map(|n| {
            let text = format!("echo {n}; exit {}", n % 3);
            commands.iter().find(|command| command["text"] == text.as_str()).unwrap()["code"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(codes, (0..20).map(|n: u32| (n % 3).to_string()).collect::<Vec<_>>());
    assert!(count("ansible") > 0, "{commands:#?}");
    place.gateway.verify();
}
