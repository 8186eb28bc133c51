//! `lapidary explain`.

use crate::shared::{Shared, Status, print};
use lapidary::bench::table::{Table, bytes, count};
use lapidary::bench::{Call, parse_call};
use lapidary::ops::{Operand, Row};
use lapidary::{Format, Result};
use serde_json::{Value, json};

/// Show which kernel runs a problem on this device, and why each other one does not
#[derive(clap::Args)]
pub struct Args {
    /// A problem as a profile prints it, such as 'softmax(rows=577,cols=1024) x:strides=2048x1'
    #[arg(required = true)]
    problem: Vec<String>,
}

pub fn run(args: &Args, shared: &Shared) -> Result<Status> {
    let device = shared.device()?;
    let call = parse_call(&args.problem.join(" "))?;
    let rows = call.problem.explain(&device, &call.layouts()?);
    let kernel = call.kernel(&device, None);
    if shared.json {
        print(&format!("{:#}\n", to_json(&call, &rows, kernel.as_ref().ok().copied())?))?;
        kernel?;
        return Ok(Status::Success);
    }
    let mut text = format!("{}\n\n{}\n", call.text()?, operands(&call)?);
    let cost = call.problem.cost();
    text += &format!(
        "{} floating-point operations, {} read, {} written, {:.2} operations per byte\n\n",
        count(cost.flops),
        bytes(cost.bytes_read),
        bytes(cost.bytes_written),
        intensity(&call),
    );
    text += &kernels(&rows);
    print(&text)?;
    let kernel = kernel?;
    if !rows.iter().any(|r| r.selected) {
        print(&format!("\nnone takes the operands as they lie: `copy` runs first, then {kernel}\n"))?;
    }
    Ok(Status::Success)
}

fn operands(call: &Call) -> Result<String> {
    let layouts = call.layouts()?;
    let (inputs, outputs) = (call.problem.inputs(), call.problem.outputs());
    let line = |role: &str, o: &Operand, strides: Option<String>| {
        let dtype = if o.format == Format::Plain { o.dtype.to_string() } else { format!("{} {}", o.dtype, o.format) };
        vec![role.into(), o.name.into(), dtype, o.shape.to_string(), strides.unwrap_or_default(), bytes(o.bytes())]
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (i, o) in inputs.iter().filter(|(_, o)| o.present) {
        let strides = layouts[i].map(|l| l.strides().iter().map(usize::to_string).collect::<Vec<_>>().join("x"));
        rows.push(line("operand", o, strides));
    }
    rows.extend(outputs.iter().filter(|(_, o)| o.present).map(|(_, o)| line("result", o, None)));
    Ok(Table::render(&["", "name", "dtype", "shape", "strides", ">bytes"], &rows))
}

fn kernels(rows: &[Row]) -> String {
    let why = |r: &Row| match r.unsupported {
        _ if r.selected => "runs".to_string(),
        Some(why) => why.to_string(),
        None if !r.suits => "can; does not suit such a problem".into(),
        None => "can; stands after the one that runs".into(),
    };
    let tunables = |r: &Row| r.tunables.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = rows.iter().map(|r| vec![r.name.to_string(), why(r), tunables(r)]).collect();
    Table::render(&["kernel", "", "tunables"], &lines)
}

fn intensity(call: &Call) -> f64 {
    let cost = call.problem.cost();
    cost.flops as f64 / cost.bytes().max(1) as f64
}

fn to_json(call: &Call, rows: &[Row], kernel: Option<&str>) -> Result<Value> {
    let (inputs, outputs) = (call.problem.inputs(), call.problem.outputs());
    let operand = |o: &Operand| {
        json!({
            "name": o.name, "dtype": o.dtype.name(), "format": o.format.to_string(), "shape": o.shape.to_vec(),
            "bytes": o.bytes(),
        })
    };
    let list = |items: Vec<&Operand>| items.into_iter().filter(|o| o.present).map(operand).collect::<Vec<_>>();
    let row = |r: &Row| {
        json!({
            "name": r.name, "selected": r.selected, "suits": r.suits,
            "unsupported": r.unsupported.map(|u| u.to_string()),
            "tunables": r.tunables.iter().map(|&(k, v)| (k.to_string(), v.into())).collect::<serde_json::Map<_, _>>(),
        })
    };
    let cost = call.problem.cost();
    Ok(json!({
        "problem": call.text()?, "kernel": kernel, "copied_first": !rows.iter().any(|r| r.selected),
        "operands": list(inputs.iter().map(|(_, o)| o).collect()),
        "results": list(outputs.iter().map(|(_, o)| o).collect()),
        "flops": cost.flops, "bytes_read": cost.bytes_read, "bytes_written": cost.bytes_written,
        "flops_per_byte": intensity(call), "kernels": rows.iter().map(row).collect::<Vec<_>>(),
    }))
}
