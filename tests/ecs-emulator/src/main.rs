//! The emulator as a program.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ecs_emulator::{Config, Emulator, model::Knobs};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

/// Amazon ECS on one machine: services, rolling deployments, task protection; tasks are local processes.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the API until SIGTERM or ctrl-C, then ends all tasks.
    Serve(Serve),
    /// Prints the knobs of a preset, as JSON.
    Knobs {
        /// Which.
        #[arg(long, default_value = "realistic")]
        preset: Preset,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Preset {
    /// Delays as on AWS.
    Realistic,
    /// Delays of a second and less.
    Fast,
}

#[derive(Debug, Args)]
struct Serve {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: std::net::IpAddr,
    /// Port; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Where the knobs start from.
    #[arg(long, default_value = "realistic")]
    preset: Preset,
    /// Divides every delay of the scheduler and of the task timeline; stop timeouts and protection stay real.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    time_scale: f64,
    /// How much faster than real protection runs out: with 60, a minute lasts a second.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    protection_scale: f64,
    /// One knob, as NAME=JSON, such as `tick_seconds=0.5` or `blocked_rule="off"`. May be repeated.
    #[arg(long = "knob", value_name = "NAME=JSON", value_parser = knob)]
    knobs: Vec<(String, Value)>,
    /// Of all the scheduler's choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder for what tasks write.
    #[arg(long, default_value = "ecs-logs")]
    logs: PathBuf,
    /// Give each container a host name of its own, by a UTS namespace. Needs root or user namespaces.
    #[arg(long)]
    own_hostnames: bool,
    /// A variable of this environment that tasks get, too, beside HOME, LANG, `LC_ALL`, PATH and TMPDIR.
    #[arg(long, value_name = "NAME")]
    inherit: Vec<String>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("a number above zero is expected".to_owned()),
    }
}

fn knob(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=JSON is expected")?;
    // A word without quotes is taken as a string.
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

impl Preset {
    fn knobs(self) -> Knobs {
        match self {
            Self::Realistic => Knobs::default(),
            Self::Fast => Knobs::fast(),
        }
    }
}

impl Serve {
    fn config(self) -> Result<Config, serde_json::Error> {
        let mut document = serde_json::to_value(self.preset.knobs().scaled(self.time_scale))?;
        document["protection_scale"] = self.protection_scale.into();
        for (name, value) in self.knobs {
            document[name] = value;
        }
        let mut config = Config::new(self.logs);
        config.knobs = serde_json::from_value(document)?;
        config.seed = self.seed;
        config.address = SocketAddr::new(self.host, self.port);
        config.own_hostnames = self.own_hostnames;
        config.inherit.extend(self.inherit);
        Ok(config)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let done = match Cli::parse().command {
        Command::Serve(serve) => run(serve).await,
        Command::Knobs { preset } => serde_json::to_string_pretty(&preset.knobs())
            .map_err(Into::into)
            .and_then(|text| writeln!(std::io::stdout(), "{text}").map_err(Into::into)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("ecs-emulator: {error}");
            let mut cause = error.source();
            while let Some(source) = cause {
                text = format!("{text}: {source}");
                cause = source.source();
            }
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}

async fn run(serve: Serve) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let emulator = Emulator::start(serve.config()?).await?;
    writeln!(std::io::stdout(), "listening on {}", emulator.endpoint())?;
    std::io::stdout().flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = emulator.ended() => {}
    }
    emulator.stop().await;
    Ok(())
}
