//! A kernel that is right, and the same with one mistake planted: each has to be found, with its line and thread.

use super::Emulator;
use crate::backend::cuda::driver::{Config, Driver};
use crate::error::Result;

/// Two warps: `out[t] = in[t ^ 33] + (t ^ 33)`, through asynchronous copies, the other warp's half of shared memory and a
/// shuffle.
const RIGHT: &str = "\
.version 7.8
.target sm_80
.address_size 64

.visible .entry planted(.param .u64 planted_out, .param .u64 planted_in)
.maxntid 64, 1, 1
{
    .reg .pred %p<3>;
    .reg .b32 %r<16>;
    .reg .b64 %rd<8>;
    .shared .align 16 .b8 tile[512];

    ld.param.u64 %rd1, [planted_out];
    ld.param.u64 %rd2, [planted_in];
    mov.u32 %r1, %tid.x;
    shl.b32 %r2, %r1, 2;
    mov.u32 %r3, tile;
    add.s32 %r4, %r3, %r2;
    cvt.u64.u32 %rd3, %r2;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    xor.b32 %r5, %r2, 128;
    add.s32 %r6, %r3, %r5;
    setp.lt.u32 %p1, %r1, 7;
    setp.lt.u32 %p2, %r1, 32;

    cp.async.ca.shared.global [%r4], [%rd5], 4;
    cp.async.commit_group;
    cp.async.wait_group 0;
    bar.sync 0;
    ld.shared.u32 %r7, [%r6];
    barrier.sync 0;
    st.shared.u32 [%r4], %r1;
    bar.sync 0, 64;
    ld.shared.u32 %r8, [%r6];
    add.s32 %r9, %r7, %r8;
    shfl.sync.bfly.b32 %r10, %r9, 1, 31, -1;
    st.global.u32 [%rd4], %r10;
    ret;
}
";

/// What the kernel computes from `in[t] = 1000 t`.
fn run(ptx: &str, config: Config, params_bytes: usize) -> Result<Vec<u32>> {
    let emulator = Emulator::new();
    let module = emulator.load("planted.ptx", ptx)?;
    let function = emulator.function(module, "planted")?;
    let (out, input) = (emulator.alloc(256)?, emulator.alloc(256)?);
    let values: Vec<u32> = (0..64).map(|t| 1000 * t).collect();
    emulator.upload(input, bytemuck::cast_slice(&values))?;
    let params = [out.to_le_bytes(), input.to_le_bytes()].concat();
    emulator.launch(&function, &config, &params[..params_bytes])?;
    let mut values = vec![0u32; 64];
    emulator.download(out, bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

const CONFIG: Config = Config { grid: [1, 1, 1], block: [64, 1, 1], smem_bytes: 0 };

/// Plants a mistake and wants it to be found at the first line that contains `line`, with all of `words` in the message.
#[track_caller]
fn plant(right: &str, wrong: &str, line: &str, words: &[&str]) {
    assert!(RIGHT.contains(right), "{right}");
    let ptx = RIGHT.replace(right, wrong);
    let number = 1 + ptx.lines().position(|text| text.contains(line)).unwrap();
    let message = run(&ptx, CONFIG, 16).unwrap_err().to_string();
    for word in [&format!("line {number} "), "planted", line].iter().chain(words) {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn the_right_kernel_is_right() {
    let got = run(RIGHT, CONFIG, 16).unwrap();
    let want: Vec<u32> = (0..64).map(|t| 1001 * (t ^ 33)).collect();
    assert_eq!(got, want);
}

#[test]
fn accesses_out_of_bounds() {
    let (right, read) = ("st.global.u32 [%rd4]", "ld.shared.u32 %r7, [%r6]");
    plant(right, "st.global.u32 [%rd4+4]", "[%rd4+4]", &["[63, 0, 0]", "4 bytes", "out of bounds of global memory"]);
    plant(right, "st.global.u32 [%rd4+-256]", "[%rd4+-256]", &["[0, 0, 0]", "out of bounds of global memory"]);
    plant(right, "st.global.u32 [%rd4+2]", "[%rd4+2]", &["[0, 0, 0]", "not a multiple of the 4 bytes"]);
    plant(read, "ld.shared.u32 %r7, [%r6+384]", "[%r6+384]", &["[0, 0, 0]", "out of bounds of shared memory"]);
    plant(read, "ld.param.u32 %r7, [planted_in+6]", "planted_in+6", &["[0, 0, 0]", "not a multiple"]);
    plant(
        read,
        "ld.param.u32 %r7, [planted_in+8]",
        "planted_in+8",
        &["[0, 0, 0]", "out of bounds of parameter memory"],
    );
}

#[test]
fn reads_of_what_nobody_wrote() {
    plant("%r7, [%r6]", "%r7, [%r6+256]", "[%r6+256]", &["[0, 0, 0]", "never written"]);
    // Without the first barrier the other warp has not even begun.
    plant("bar.sync 0;", "", "ld.shared.u32 %r7", &["[0, 0, 0]", "never written"]);
}

#[test]
fn missing_barriers() {
    // The second one: warp 1 reads what warp 0 has written already.
    let store = RIGHT.lines().position(|line| line.contains("st.shared")).unwrap() + 1;
    let earlier = format!("written by warp 0 in line {store}");
    plant("barrier.sync 0;", "", "ld.shared.u32 %r7", &["[32, 0, 0]", "race", &earlier]);
    // The third one: warp 0 has read what warp 1 only writes then.
    let load = RIGHT.lines().position(|line| line.contains("ld.shared.u32 %r8")).unwrap() + 1;
    let earlier = format!("read by warp 0 in line {load}");
    plant("bar.sync 0, 64;", "", "st.shared.u32", &["[32, 0, 0]", "race", &earlier]);
    // A barrier of the warp alone is none.
    plant("barrier.sync 0;", "bar.warp.sync -1;", "ld.shared.u32 %r7", &["race"]);
}

#[test]
fn copies_that_are_not_waited_for() {
    let copy = RIGHT.lines().position(|line| line.contains("cp.async.ca")).unwrap() + 1;
    let copy = format!("copied to by cp.async by warp 1 in line {copy}");
    plant("cp.async.wait_group 0;", "", "ld.shared.u32 %r7", &["[0, 0, 0]", "not waited for", &copy]);
    plant("cp.async.wait_group 0;", "cp.async.wait_group 1;", "ld.shared.u32 %r7", &["not waited for"]);
}

#[test]
fn barriers_that_not_everybody_comes_to() {
    plant("barrier.sync 0;", "@%p1 barrier.sync 0;", "@%p1 barrier.sync 0", &["divergent barrier"]);
    plant("barrier.sync 0;", "@%p2 barrier.sync 1;\n@!%p2 barrier.sync 2;", "@%p2 barrier.sync 1", &["deadlock"]);
    plant("shfl.sync", "@%p1 shfl.sync", "@%p1 shfl.sync", &["member mask"]);
    plant("bar.sync 0, 64;", "bar.sync 0, 96;", "bar.sync 0, 96", &["deadlock"]);
}

#[test]
fn stores_that_disagree() {
    plant("st.shared.u32 [%r4]", "st.shared.u32 [tile]", "st.shared.u32 [tile]", &["different values"]);
}

#[test]
fn traps_and_what_is_unknown() {
    plant("ret;", "@%p1 trap;\nret;", "@%p1 trap", &["[0, 0, 0]", "trap"]);
    plant("add.s32 %r9", "add.s32.sparkling %r9", "sparkling", &["sparkling"]);
    plant("add.s32 %r9", "frobnicate.s32 %r9", "frobnicate", &["frobnicate"]);
}

#[test]
fn launches_that_do_not_fit() {
    for (config, params_bytes, word) in [
        (Config { block: [65, 1, 1], ..CONFIG }, 16, "launch bounds"),
        (Config { smem_bytes: 163 << 10, ..CONFIG }, 16, "shared memory"),
        (CONFIG, 8, "parameters"),
        (Config { grid: [0, 1, 1], ..CONFIG }, 16, "grid"),
    ] {
        let message = run(RIGHT, config, params_bytes).unwrap_err().to_string();
        assert!(message.contains(word) && message.contains("planted"), "{message}");
    }
}
