//! The command line: one file a subcommand. It wires things up and shows what they say; it decides nothing about tasks.

pub mod connect;
pub mod controller;
pub mod crd;
pub mod drive;
pub mod exit;
pub mod logs;
pub mod manifest;
pub mod plan;
pub mod reference;
pub mod run;
pub mod secrets;
pub mod view;

use clap::{ArgAction, Parser, Subcommand};

use self::exit::{Complaint, Exit, complain};

/// Lets Celery workers on Amazon ECS finish their jobs before a deployment stops them.
#[derive(Clone, Debug, Parser)]
#[command(name = "worker-drain", version, about, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Log to standard error what worker-drain itself does; twice for more, three times for what its libraries do as well
    /// (`RUST_LOG` says it in detail)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Plan(plan::PlanArgs),
    Controller(controller::ControllerArgs),
    Crd(crd::CrdArgs),
}

/// Runs the command line of this process.
pub fn main() -> Exit {
    let cli = Cli::parse();
    // The operator's logs are what its operator reads: they have flags of their own.
    let operates = matches!(cli.command, Command::Controller(_));
    let logs = !operates && logs::start(cli.verbose);
    match cli.command {
        Command::Run(args) => on_runtime(args.run(logs)),
        Command::Plan(args) => on_runtime(args.run()),
        Command::Controller(args) => on_runtime(args.run()),
        Command::Crd(args) => match args.run() {
            Ok(()) => Exit::Done,
            Err(error) => {
                complain(&[Complaint::new(format!("cannot write the CRD: {}", secrets::plain(&error)))]);
                Exit::CouldNotRun
            }
        },
    }
}

fn on_runtime(work: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(work);
            // What is still under way is not waited for: the user wants to go.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            complain(&[Complaint::new(format!("cannot start: {}", secrets::plain(&error)))]);
            Exit::CouldNotRun
        }
    }
}
