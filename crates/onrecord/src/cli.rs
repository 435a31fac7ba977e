//! The command line: its grammar, and the way from arguments to the command that they name.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::commands::{self, Context};
use crate::output::{Console, Format, Look, Tone};
use crate::{Exit, Failure};

/// Where the configuration is looked for when nobody says where it is.
pub const CONFIG_PLACES: [&str; 2] = ["onrecord.toml", "/etc/onrecord/onrecord.toml"];

const EXAMPLES: &str = "\
Examples:
  onrecord init --postgres postgres://app_owner@db.internal/app --password file:/etc/onrecord/app.password
  onrecord identities add copilot-agent --connection app
  onrecord serve
  onrecord commands --since 1h --status error
  onrecord verify

Exit codes: 0 done, 1 failure, 2 usage or configuration, 3 record altered, 4 record incomplete, 5 not found,
6 too few witnesses, or with `verify --strict` too little seen.";

/// A gateway that keeps the record of what agents, people and scripts do to infrastructure.
#[derive(Debug, Parser)]
#[command(name = "onrecord", version, after_long_help = EXAMPLES, propagate_version = false)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Configuration file [default: ./onrecord.toml, then /etc/onrecord/onrecord.toml]
    #[arg(long, global = true, value_name = "FILE", env = "ONRECORD_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// How results are printed
    #[arg(long, short, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a configuration and create the data directory
    Init(commands::init::Init),
    /// Run the gateway until SIGTERM or SIGINT
    Serve,
    /// Check or describe the configuration
    #[command(subcommand)]
    Config(commands::config::ConfigCommand),
    /// Look for what keeps the gateway from working, and say what to do
    Doctor(commands::doctor::Doctor),
    /// The resources that clients reach through the gateway
    #[command(subcommand)]
    Connections(commands::connections::Connections),
    /// Who may sign in
    #[command(subcommand)]
    Identities(commands::identities::Identities),
    /// Prove who you are to a gateway, and keep how
    Login(commands::login::LoginArgs),
    /// See who you are to a gateway, and what you may use
    Whoami(commands::login::Whoami),
    /// Get a short-lived token for one connection, to be given as a password
    Token(commands::token::Token),
    /// Run a client with a short-lived token of its own
    Run(commands::run::Run),
    /// What waits for a person's decision: look at it, approve or deny it
    #[command(subcommand)]
    Approvals(commands::approvals::Approvals),
    /// Run what has to be approved without waiting, for a short time: others are told, and another person reviews it
    #[command(subcommand)]
    BreakGlass(commands::break_glass::BreakGlass),
    /// The processes beside resources that dial out to the gateway
    #[command(subcommand)]
    Outpost(commands::outpost::OutpostCommand),
    /// The rules that decide which commands may run: check, test and explain them, try them on the past
    #[command(subcommand)]
    Policy(commands::policy::PolicyCommand),
    /// List recorded commands, newest last
    Commands(commands::commands::Commands),
    /// List recorded sessions, newest last
    Sessions(commands::sessions::Sessions),
    /// Show everything known of a command or a session
    Show(commands::show::Show),
    /// Show what a program wrote
    Output(commands::output::Output),
    /// Play a session, command by command, or what a terminal showed
    Replay(commands::replay::Replay),
    /// Look on while a program writes, or a session goes on; the record says that you did
    Watch(commands::watch::Watch),
    /// End a session that goes on
    Kill(commands::kill::Kill),
    /// Write what a terminal showed as a file for asciinema and other players
    Asciicast(commands::asciicast::Asciicast),
    /// Erase the content of a session; its entries stay and still verify
    Erase(commands::erase::Erase),
    /// Erase one field of a command; its entries stay and still verify
    Redact(commands::erase::Redact),
    /// Legal holds, which keep content from being erased
    #[command(subcommand)]
    Hold(commands::hold::HoldCommand),
    /// What has been kept as long as the configuration says
    Retention(commands::retention::Retention),
    /// The keys of the data directory
    #[command(subcommand)]
    Keys(commands::keys::KeysCommand),
    /// Verify the record: unaltered, complete, and what it covers
    Verify(commands::verify::Verify),
    /// The logs of the data directory, one after another
    #[command(subcommand)]
    Epochs(commands::epochs::EpochsCommand),
    /// Take out the receipt of a session, or check one
    Receipt(commands::receipt::ReceiptCommand),
    /// Be a witness of other logs, or see how far this log's own are
    #[command(subcommand)]
    Witness(commands::witness::WitnessCommand),
    /// Hand out a part of the record as one file that proves itself
    #[command(subcommand)]
    Evidence(commands::evidence::EvidenceCommand),
    /// Print a shell's completions
    Completions(commands::completions::Completions),
}

/// Where the record is: the data directory of the configuration, unless named.
#[derive(Debug, Clone, Default, Args)]
pub struct RecordPlace {
    /// Data directory to read, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Does what the command line asks, says on standard error what went wrong, and gives the exit code.
pub fn run(cli: Cli) -> Exit {
    let mut context = Context { config: cli.global.config, console: Console::stdout(cli.global.output) };
    let done = dispatch(&mut context, cli.command).and_then(|()| context.console.flush().map_err(Failure::from));
    match done {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            let _ = context.console.flush();
            say(&failure);
            failure.exit()
        }
    }
}

fn dispatch(context: &mut Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(init) => init.run(context),
        Command::Serve => commands::serve::run(context),
        Command::Config(config) => config.run(context),
        Command::Doctor(doctor) => doctor.run(context),
        Command::Connections(connections) => connections.run(context),
        Command::Identities(identities) => identities.run(context),
        Command::Login(login) => login.run(context),
        Command::Whoami(whoami) => whoami.run(context),
        Command::Token(token) => token.run(context),
        Command::Run(run) => run.run(context),
        Command::Approvals(approvals) => approvals.run(context),
        Command::BreakGlass(glass) => glass.run(context),
        Command::Outpost(outpost) => outpost.run(context),
        Command::Policy(policy) => policy.run(context),
        Command::Commands(commands) => commands.run(context),
        Command::Sessions(sessions) => sessions.run(context),
        Command::Show(show) => show.run(context),
        Command::Output(output) => output.run(context),
        Command::Replay(replay) => replay.run(context),
        Command::Watch(watch) => watch.run(context),
        Command::Kill(kill) => kill.run(context),
        Command::Asciicast(asciicast) => asciicast.run(context),
        Command::Erase(erase) => erase.run(context),
        Command::Redact(redact) => redact.run(context),
        Command::Hold(hold) => hold.run(context),
        Command::Retention(retention) => retention.run(context),
        Command::Keys(keys) => keys.run(context),
        Command::Verify(verify) => verify.run(context),
        Command::Epochs(epochs) => epochs.run(context),
        Command::Receipt(receipt) => receipt.run(context),
        Command::Witness(witness) => witness.run(context),
        Command::Evidence(evidence) => evidence.run(context),
        Command::Completions(completions) => completions.run(context),
    }
}

/// Says a failure on standard error. Nobody to tell it to is no reason to fail again.
pub fn say(failure: &Failure) {
    if !failure.is_silent() {
        let stderr = std::io::stderr();
        let error = Look::of(&stderr).paint(Tone::Bad, "error:");
        let _ = writeln!(stderr.lock(), "onrecord: {error} {failure}");
    }
}

/// The configuration file to use: the named one, else the first that exists, else where `init` puts it.
pub fn config_file(named: Option<&Path>) -> PathBuf {
    named.map_or_else(
        || {
            let mut places = CONFIG_PLACES.iter().map(PathBuf::from);
            places.find(|place| place.exists()).unwrap_or_else(|| PathBuf::from("onrecord.toml"))
        },
        Path::to_path_buf,
    )
}
