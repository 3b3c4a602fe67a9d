//! Tells a controller of an SPU, where the program `fluvio` is not installed:
//! `register-spu CONTROLLER ID PUBLIC PRIVATE`, addresses as `HOST:PORT`.

use std::process::ExitCode;

use falaj_log_fluvio::{Options, register_spu};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("register-spu: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), String> {
    let [controller, id, public, private] = words else {
        return Err("usage: register-spu CONTROLLER ID PUBLIC PRIVATE".into());
    };
    let id = id.parse().map_err(|_| format!("{id} is not a number"))?;
    let options = Options::new(controller, "any", vec![]);
    register_spu(&options, id, address(public)?, address(private)?)
        .map_err(|error| error.to_string())
}

fn address(text: &str) -> Result<(&str, u16), String> {
    let wrong = || format!("{text} is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    Ok((host, port.parse().map_err(|_| wrong())?))
}
