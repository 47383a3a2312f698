//! The command line: one file a subcommand. It wires things up and shows what they say; it decides nothing about tasks.

#[cfg(feature = "cli")]
pub mod connect;
pub mod controller;
pub mod crd;
#[cfg(feature = "cli")]
pub mod drive;
pub mod exit;
pub mod logs;
#[cfg(feature = "cli")]
pub mod manifest;
#[cfg(feature = "cli")]
pub mod plan;
#[cfg(feature = "cli")]
mod progress;
pub mod reference;
#[cfg(feature = "cli")]
pub mod run;
#[cfg(feature = "cli")]
pub mod secrets;
#[cfg(feature = "cli")]
mod target;
#[cfg(feature = "cli")]
pub mod view;

use clap::{ArgAction, Parser, Subcommand};

use self::exit::{Exit, UserError, plain, print_errors};

/// Lets Celery workers on Amazon ECS finish their jobs before a deployment stops them.
#[derive(Clone, Debug, Parser)]
#[command(name = "worker-drain", version, about, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Log to standard error what worker-drain does; twice for more, three times to include its libraries (`RUST_LOG` sets
    /// levels by module)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    #[cfg(feature = "cli")]
    Run(run::RunArgs),
    #[cfg(feature = "cli")]
    Plan(plan::PlanArgs),
    Controller(controller::ControllerArgs),
    Crd(crd::CrdArgs),
}

/// Runs the command line of this process.
pub fn main() -> Exit {
    let Cli { command, verbose } = Cli::parse();
    match command {
        #[cfg(feature = "cli")]
        Command::Run(args) => on_runtime(args.run(logs::start(verbose))),
        #[cfg(feature = "cli")]
        Command::Plan(args) => {
            logs::start(verbose);
            on_runtime(args.run())
        }
        // The operator's logs have their own flags.
        Command::Controller(args) => on_runtime(args.run()),
        Command::Crd(args) => {
            logs::start(verbose);
            match args.run() {
                Ok(()) => Exit::Done,
                Err(error) => {
                    print_errors(&[UserError::new(format!("cannot write the CRD: {}", plain(&error)))]);
                    Exit::CouldNotRun
                }
            }
        }
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
            print_errors(&[UserError::new(format!("cannot start: {}", plain(&error)))]);
            Exit::CouldNotRun
        }
    }
}
