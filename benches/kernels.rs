//! `cargo bench` times every case that has a name which benches of other libraries share; `cargo bench -- gemm attn/`
//! those whose op or name contains one of the words. `lapidary bench` does the same with more choice.

use lapidary::Device;
use lapidary::bench::{Line, Options, Pattern, Preset, Style, report};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs this without `--bench`; there is nothing to test that tests/kernels.rs does not.
    if !arguments.iter().any(|a| a == "--bench") {
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = arguments.into_iter().filter(|a| !a.starts_with("--")).collect();
    match bench(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}

fn bench(words: &[String]) -> lapidary::Result<bool> {
    let calls = Preset::Peers.calls(&Pattern::any(), &Pattern::words(words))?;
    let wrong = report(&calls, &[Device::cpu()?], Options::default(), Style::Table, &mut |line| {
        match line {
            Line::Note(text) | Line::Head(text) | Line::Row(text) => println!("{text}"),
        }
        Ok(())
    })?;
    Ok(wrong.is_empty())
}
