//! Small kernels against what they must give.

use super::super::driver::{Config, Driver};
use super::Emulator;
use crate::error::Result;

const HEADER: &str = ".version 7.8\n.target sm_80\n.address_size 64\n";

/// Runs kernel `k` of a text on one block, with an output of `words` words and then the inputs as parameters.
fn launch(text: &str, threads: u32, smem_bytes: u32, words: usize, inputs: &[u32]) -> Result<Vec<u32>> {
    let emulator = Emulator::new();
    let module = emulator.load("test", &format!("{HEADER}{text}"))?;
    let function = emulator.function(module, "k")?;
    let out = emulator.alloc(4 * words)?;
    emulator.clear(out, 4 * words)?;
    let mut params = out.to_le_bytes().to_vec();
    inputs.iter().for_each(|x| params.extend(x.to_le_bytes()));
    let config = Config { grid: [1, 1, 1], block: [threads, 1, 1], smem_bytes };
    emulator.launch(&function, &config, &params)?;
    let mut bytes = vec![0; 4 * words];
    emulator.download(out, &mut bytes)?;
    Ok(bytes.chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect())
}

/// A kernel whose thread t writes `%r0` to word t of the output; `%r1` begins as t.
fn per_thread(body: &str) -> String {
    format!(
        ".visible .entry k(.param .u64 out) {{
            .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<20>; .reg .f32 %f<9>; .reg .b64 %d<9>;
            ld.param.u64 %d0, [out];
            mov.u32 %r1, %tid.x;
            {body}
            mul.wide.u32 %d1, %r1, 4; add.s64 %d2, %d0, %d1; st.global.u32 [%d2], %r0; ret;
        }}"
    )
}

fn threads(body: &str, threads: u32) -> Vec<u32> {
    launch(&per_thread(body), threads, 0, threads as usize, &[]).unwrap()
}

/// What instructions make of three words.
fn evaluate(body: &str, inputs: [u32; 3]) -> [u32; 2] {
    let text = format!(
        ".visible .entry k(.param .u64 out, .param .u32 a, .param .u32 b, .param .u32 c) {{
            .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<20>, %a, %b, %c, %x, %y; .reg .b64 %d<9>, %o, %ab;
            ld.param.u64 %o, [out]; ld.param.u32 %a, [a]; ld.param.u32 %b, [b]; ld.param.u32 %c, [c];
            mov.b64 %ab, {{%a, %b}}; mov.u32 %y, 0;
            {body}
            st.global.v2.u32 [%o], {{%x, %y}}; ret;
        }}"
    );
    let out = launch(&text, 1, 0, 2, &inputs).unwrap_or_else(|e| panic!("{body}: {e}"));
    [out[0], out[1]]
}

#[test]
fn integers() {
    let minus = |x: i32| -x as u32;
    let f = f32::to_bits;
    for (body, a, b, c, want) in [
        ("add.s32 %x, %a, %b;", 5, minus(7), 0, minus(2)),
        ("sub.u32 %x, %a, %b;", 5, 7, 0, minus(2)),
        ("add.sat.s32 %x, %a, %b;", 0x7fff_ffff, 1, 0, 0x7fff_ffff),
        ("mul.hi.u32 %x, %a, %b;", 0xffff_ffff, 0xffff_ffff, 0, 0xffff_fffe),
        ("mul.hi.s32 %x, %a, %b;", minus(1), minus(1), 0, 0),
        ("mad.lo.s32 %x, %a, %b, %c;", 3, minus(4), 100, 88),
        ("mad24.lo.u32 %x, %a, %b, %c;", 0xff00_0003, 4, 1, 13),
        ("div.s32 %x, %a, %b;", minus(7), 2, 0, minus(3)),
        ("rem.s32 %x, %a, %b;", minus(7), 2, 0, minus(1)),
        ("div.u32 %x, %a, %b;", 7, 0, 0, u32::MAX),
        ("min.s32 %x, %a, %b;", minus(7), 2, 0, minus(7)),
        ("max.u32 %x, %a, %b;", minus(7), 2, 0, minus(7)),
        ("abs.s32 %x, %a;", minus(7), 0, 0, 7),
        ("sad.u32 %x, %a, %b, %c;", 3, 10, 1, 8),
        ("shl.b32 %x, %a, %b;", 1, 33, 0, 0),
        ("shr.s32 %x, %a, %b;", minus(8), 40, 0, u32::MAX),
        ("shr.u32 %x, %a, %b;", 0x80, 4, 0, 8),
        ("shf.l.wrap.b32 %x, %a, %b, %c;", 0x8000_0000, 1, 33, 3),
        ("shf.r.clamp.b32 %x, %a, %b, %c;", 1, 6, 32, 6),
        ("bfe.u32 %x, %a, %b, %c;", 0xabcd, 4, 8, 0xbc),
        ("bfe.s32 %x, %a, %b, %c;", 0xf0, 4, 4, u32::MAX),
        ("bfi.b32 %x, %a, %b, 8, 4;", 0x5, 0xffff, 0, 0xf5ff),
        ("brev.b32 %x, %a;", 1, 0, 0, 0x8000_0000),
        ("popc.b32 %x, %a;", 0xff0f, 0, 0, 12),
        ("clz.b32 %x, %a;", 0x10, 0, 0, 27),
        ("bfind.u32 %x, %a;", 0x10, 0, 0, 4),
        ("bfind.shiftamt.s32 %x, %a;", minus(2), 0, 0, 31),
        ("prmt.b32 %x, %a, %b, 0x5410;", 0x1111_2222, 0x3333_4444, 0, 0x4444_2222),
        ("prmt.b32 %x, %a, %b, 0x9;", 0x8000, 0, 0, 0xff),
        ("lop3.b32 %x, %a, %b, %c, 0xe8;", 0b1100, 0b1010, 0b1001, 0b1000),
        ("lop3.b32 %x, %a, %b, %c, 0x96;", 0b1100, 0b1010, 0b1001, 0b1111),
        ("dp4a.s32.s32 %x, %a, %b, %c;", 0xff02_0301, 0x0102_0304, 5, 5 + 4 + 9 + 4 - 1),
        ("not.b32 %x, %a;", 5, 0, 0, !5),
        ("cnot.b32 %x, %a;", 0, 0, 0, 1),
        ("slct.b32.s32 %x, %a, %b, %c;", 1, 2, minus(1), 2),
        ("add.cc.u32 %y, %a, %b; addc.u32 %x, %a, 0;", u32::MAX, 1, 0, 0),
        ("sub.cc.u32 %y, %a, %b; subc.u32 %x, %c, 0;", 0, 1, 7, 6),
        ("mad.lo.cc.u32 %y, %a, %b, %c; madc.hi.u32 %x, %a, %b, 0;", 1 << 31, 2, 5, 1),
        ("mul.wide.s32 %d0, %a, %b; shr.u64 %d1, %d0, 32; cvt.u32.u64 %x, %d1;", minus(1), 1, 0, u32::MAX),
        ("cvt.u32.u16 %x, %h0;", 0, 0, 0, 0),
        ("cvt.s64.s8 %d0, %ab; cvt.u32.u64 %x, %d0;", 0xff80, 0, 0, minus(128)),
        ("cvt.u16.u32 %h0, %a; cvt.s32.s16 %x, %h0;", 0x18000, 0, 0, minus(32768)),
        ("cvt.sat.u8.s32 %x, %a;", minus(5), 0, 0, 0),
        ("cvt.rzi.s32.f32 %x, %a;", f(-2.7), 0, 0, minus(2)),
        ("cvt.rn.f32.s32 %x, %a;", minus(3), 0, 0, f(-3.0)),
        ("cvt.rn.bf16x2.f32 %x, %a, %b;", f(1.0), f(-2.0), 0, 0x3f80_c000),
        ("set.lt.u32.s32 %x, %a, %b;", minus(1), 1, 0, u32::MAX),
        ("setp.lt.and.u32 %p0|%p1, %a, %b, %p2; selp.u32 %x, 1, 0, %p1;", 1, 2, 0, 0),
        ("setp.nan.f32 %p0, %a, %b; selp.u32 %x, 1, 0, %p0;", f(f32::NAN), 0, 0, 1),
        ("setp.neu.f32 %p0, %a, %b; selp.u32 %x, 1, 0, %p0;", f(f32::NAN), 0, 0, 1),
        ("setp.ne.f32 %p0, %a, %b; selp.u32 %x, 1, 0, %p0;", f(f32::NAN), 0, 0, 0),
        ("mov.pred %p0, -1; not.pred %p1, %p0; selp.u32 %x, 3, 4, !%p1;", 0, 0, 0, 3),
        ("mov.b32 {%h0, %h1}, %a; mov.b32 %x, {%h1, %h0};", 0x1234_5678, 0, 0, 0x5678_1234),
    ] {
        assert_eq!(evaluate(body, [a, b, c])[0], want, "{body} of {a:#x} {b:#x} {c:#x}");
    }
}

#[test]
fn lanes_that_part_meet_again() {
    // Loops of different lengths, one branch inside of another, and lanes that leave early.
    let body = "
        mov.u32 %r0, 0; mov.u32 %r2, 0;
        LOOP:
        and.b32 %r3, %r2, 1; setp.eq.u32 %p0, %r3, 0;
        @%p0 bra EVEN;
        add.u32 %r0, %r0, 100;
        setp.gt.u32 %p1, %r2, 20;
        @%p1 bra LEAVE;
        bra.uni NEXT;
        EVEN: add.u32 %r0, %r0, 1;
        NEXT: add.u32 %r2, %r2, 1; setp.le.u32 %p0, %r2, %r1;
        @%p0 bra LOOP;
        activemask.b32 %r4;
        LEAVE:
        activemask.b32 %r5; setp.eq.u32 %p3, %r5, -1;
        @!%p3 mov.u32 %r0, 7;";
    let want = (0..32u32).map(|t| {
        let (mut sum, mut i) = (0, 0);
        loop {
            if i % 2 == 1 {
                sum += 100;
                if i > 20 {
                    break;
                }
            } else {
                sum += 1;
            }
            i += 1;
            if i > t {
                break;
            }
        }
        sum
    });
    assert_eq!(threads(body, 32), want.collect::<Vec<_>>());
}

#[test]
fn tables_of_targets() {
    let body = "
        and.b32 %r2, %r1, 3; mov.u32 %r0, 0;
        LIST: .branchtargets A, B, A, C;
        setp.lt.u32 %p0, %r1, 30;
        @%p0 brx.idx %r2, LIST;
        mov.u32 %r0, 99; bra D;
        A: add.u32 %r0, %r0, 10;
        B: add.u32 %r0, %r0, 1; bra D;
        C: mov.u32 %r0, 5;
        D:";
    let want = (0..40u32).map(|t| if t >= 30 { 99 } else { [11, 1, 11, 5][t as usize % 4] });
    assert_eq!(threads(body, 40), want.collect::<Vec<_>>());
}

#[test]
fn functions_and_local_memory() {
    let text = format!(
        ".const .align 4 .u32 table[3] = {{10, 20, 30}};
        .global .align 8 .u64 pointer[1] = {{table}};
        .func (.param .b32 result) twice(.param .b32 x, .param .align 8 .b8 pair[16]) {{
            .reg .b32 %r<5>; .reg .pred %p;
            ld.param.u32 %r0, [x]; ld.param.u32 %r1, [pair+8];
            setp.gt.u32 %p, %r0, 5; @%p bra LARGE;
            add.u32 %r2, %r0, %r1; st.param.b32 [result+0], %r2; ret;
            LARGE: st.param.b32 [result+0], %r0; ret;
        }}
        {}",
        per_thread(
            "
            .local .align 8 .b8 depot[32]; .reg .b64 %SP, %SPL;
            mov.u64 %SPL, depot; cvta.local.u64 %SP, %SPL;
            and.b32 %r2, %r1, 7; mul.wide.u32 %d3, %r2, 4; add.s64 %d4, %SP, %d3; st.u32 [%d4], %r1;
            {
                .param .b32 a; .param .align 8 .b8 b[16]; .param .b32 r;
                st.param.b32 [a], %r1; st.param.v2.b32 [b+8], {%r2, %r2};
                call.uni (r), twice, (a, b);
                ld.param.b32 %r3, [r+0];
            }
            add.s64 %d5, %SPL, %d3; ld.local.u32 %r4, [%d5]; mul.lo.u32 %r4, %r4, 1000;
            rem.u32 %r5, %r1, 3; mul.wide.u32 %d6, %r5, 4; ld.global.u64 %d7, [pointer]; add.s64 %d8, %d7, %d6;
            ld.const.u32 %r6, [%d8]; add.u32 %r0, %r3, %r4; mad.lo.u32 %r0, %r6, 100000, %r0;"
        )
    );
    let out = launch(&text, 48, 0, 48, &[]).unwrap();
    let want = (0..48).map(|t| (if t > 5 { t } else { 2 * t }) + 1000 * t + 100_000 * [10, 20, 30][t as usize % 3]);
    assert_eq!(out, want.collect::<Vec<u32>>());
}

#[test]
fn warps_talk_through_shared_memory() {
    // Each thread reads what the next warp wrote; the second barrier gives how many are odd.
    let body = "
        .shared .align 4 .b8 buffer[384]; .reg .b64 %s;
        mul.lo.u32 %r2, %r1, 4; mov.u32 %r3, buffer; add.u32 %r3, %r3, %r2; st.shared.u32 [%r3], %r1;
        bar.sync 0;
        add.u32 %r4, %r1, 32; rem.u32 %r4, %r4, 96; mul.wide.u32 %d3, %r4, 4;
        mov.u64 %s, buffer; cvta.shared.u64 %s, %s; add.s64 %d4, %s, %d3; ld.u32 %r0, [%d4];
        and.b32 %r5, %r1, 1; setp.eq.u32 %p0, %r5, 1;
        barrier.cta.red.popc.aligned.u32 %r6, 0, %p0; bar.red.and.pred %p1, 0, %p0; bar.red.or.pred %p2, 1, %p0;
        selp.u32 %r7, 1, 0, %p1; selp.u32 %r8, 2, 0, %p2; add.u32 %r7, %r7, %r8;
        mad.lo.u32 %r0, %r6, 1000, %r0; mad.lo.u32 %r0, %r7, 1000000, %r0;";
    let want = (0..96).map(|t| (t + 32) % 96 + 48_000 + 2_000_000);
    assert_eq!(threads(body, 96), want.collect::<Vec<u32>>());
}

#[test]
fn lanes_exchange_values() {
    for (instruction, want) in [
        ("shfl.sync.bfly.b32 %r0, %r1, 4, 31, -1;", (|t| t ^ 4) as fn(u32) -> u32),
        ("shfl.sync.down.b32 %r0, %r1, 3, 31, -1;", |t| if t + 3 < 32 { t + 3 } else { t }),
        ("shfl.sync.up.b32 %r0, %r1, 3, 0, -1;", |t| if t >= 3 { t - 3 } else { t }),
        ("shfl.sync.idx.b32 %r0|%p0, %r1, 1, 0x181f, -1;", |t| t / 8 * 8 + 1),
        ("shfl.sync.down.b32 %r2|%p0, %r1, 3, 31, -1; selp.u32 %r0, 1, 0, %p0;", |t| (t + 3 < 32) as u32),
        ("setp.gt.u32 %p0, %r1, 29; vote.sync.ballot.b32 %r0, %p0, -1;", |_| 0xc000_0000),
        ("setp.gt.u32 %p0, %r1, 29; vote.sync.any.pred %p1, !%p0, -1; selp.u32 %r0, 1, 0, %p1;", |_| 1),
        ("redux.sync.add.u32 %r0, %r1, -1;", |_| 496),
        ("and.b32 %r2, %r1, 1; match.any.sync.b32 %r0, %r2, -1;", |t| 0x5555_5555 << (t & 1)),
        ("mov.u32 %r0, %lanemask_lt;", |t| (1 << t) - 1),
    ] {
        assert_eq!(threads(instruction, 32), (0..32).map(want).collect::<Vec<_>>(), "{instruction}");
    }
}

#[test]
fn atomics_and_partial_warps() {
    let text = per_thread(
        "
        .shared .align 4 .u32 count; .reg .b32 %old;
        setp.eq.u32 %p0, %r1, 0; @%p0 st.shared.u32 [count], 0;
        bar.sync 0;
        atom.shared.add.u32 %old, [count], 2;
        atom.global.max.s32 %r2, [%d0+400], %r1;
        red.global.add.f32 [%d0+404], 0f3F800000;
        atom.global.inc.u32 %r3, [%d0+408], 9;
        bar.sync 0;
        ld.shared.u32 %r0, [count];",
    );
    let out = launch(&text, 70, 0, 103, &[]).unwrap();
    assert!(out[..70].iter().all(|&x| x == 140));
    assert_eq!(out[100..], [69, 70f32.to_bits(), 0]);
}

#[test]
fn asynchronous_copies() {
    let body = "
        .shared .align 16 .b8 tile[1024];
        mul.wide.u32 %d1, %r1, 4; add.s64 %d2, %d0, %d1; st.global.u32 [%d2], %r1;
        bar.sync 0;
        mov.u32 %r2, tile; shl.b32 %r3, %r1, 4; add.u32 %r2, %r2, %r3; setp.lt.u32 %p0, %r1, 8; cvt.u64.u32 %d3, %r3;
        add.s64 %d4, %d0, %d3; selp.u32 %r4, 16, 8, %p0;
        @%p0 cp.async.cg.shared.global [%r2], [%d4], 16, %r4;
        setp.eq.u32 %p1, %r1, 8;
        @%p1 cp.async.ca.shared.global [%r2], [%d0+12], 8, 4;
        cp.async.commit_group; cp.async.commit_group; cp.async.wait_group 1;
        bar.sync 0;
        setp.lt.u32 %p2, %r1, 34; mov.u32 %r0, 0; mov.u32 %r5, tile; mad.lo.u32 %r5, %r1, 4, %r5;
        @%p2 ld.shared.u32 %r0, [%r5];";
    let want = (0..64).map(|t| {
        if t < 32 {
            t
        } else if t == 32 {
            3
        } else {
            0
        }
    });
    assert_eq!(threads(body, 64), want.collect::<Vec<u32>>());
}

#[test]
fn mistakes_are_found() {
    for (body, threads, want) in [
        ("setp.lt.u32 %p0, %r1, 8; @%p0 bra A; bar.sync 0; A:", 32, "divergent barrier"),
        ("setp.lt.u32 %p0, %r1, 32; @%p0 bra A; bar.sync 0; bra B; A: bar.sync 1; B:", 64, "deadlock"),
        ("setp.lt.u32 %p0, %r1, 8; @%p0 shfl.sync.bfly.b32 %r0, %r1, 1, 31, -1;", 32, "member mask"),
        ("setp.lt.u32 %p0, %r1, 8; @%p0 trap;", 32, "trap"),
        ("ld.global.u32 %r0, [%d0+256];", 32, "out of bounds"),
        ("ld.global.u64 %d1, [%d0+4];", 32, "not a multiple"),
        (
            ".local .align 4 .b8 a[8]; .reg .b64 %l; mov.u64 %l, a; ld.local.u32 %r0, [%l+16];",
            32,
            "out of bounds of local",
        ),
        ("ld.param.u32 %r0, [out+8];", 32, "out of bounds of parameter"),
        (".shared .align 4 .u32 a; ld.shared.u32 %r0, [a];", 32, "never written"),
        (
            ".shared .align 4 .u32 a; setp.eq.u32 %p0, %r1, 0; @%p0 st.shared.u32 [a], 1; ld.shared.u32 %r0, [a];",
            64,
            "race",
        ),
        ("LOOP: bra LOOP2; LOOP2: nosuch.u32 %r0, %r1;", 32, "unknown instruction"),
        ("add.sideways.u32 %r0, %r1, 1;", 32, "sideways"),
        ("add.u32 %d1, %r1, 1;", 32, "Long register"),
    ] {
        let error = launch(&per_thread(body), threads, 0, 64, &[]).unwrap_err().to_string();
        assert!(error.contains(want) && error.contains("line 8"), "{body}: {error}");
    }
    let text = per_thread("mov.u32 %r0, 1;").replace(") {", ") .maxntid 32, 1, 1 {");
    assert!(launch(&text, 33, 0, 64, &[]).unwrap_err().to_string().contains("launch bounds"));
    assert!(launch(&text, 32, 200_000, 64, &[]).unwrap_err().to_string().contains("shared memory"));
    assert!(launch(&text, 32, 0, 64, &[1]).unwrap_err().to_string().contains("parameters"));
}

#[test]
fn recorded_launches_run_again() {
    let emulator = Emulator::new();
    let text = format!(
        "{HEADER}{}",
        per_thread("mul.wide.u32 %d1, %r1, 4; add.s64 %d2, %d0, %d1; ld.global.u32 %r0, [%d2]; add.u32 %r0, %r0, 1;")
    );
    let module = emulator.load("test", &text).unwrap();
    let function = emulator.function(module, "k").unwrap();
    let out = emulator.alloc(128).unwrap();
    emulator.clear(out, 128).unwrap();
    emulator.begin_capture().unwrap();
    let config = Config { grid: [1, 1, 1], block: [32, 1, 1], smem_bytes: 0 };
    for _ in 0..3 {
        emulator.launch(&function, &config, &out.to_le_bytes()).unwrap();
    }
    let graph = emulator.end_capture().unwrap();
    let (mut bytes, before) = ([1; 128], emulator.event().unwrap());
    emulator.download(out, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 128]);
    emulator.replay(graph).unwrap();
    emulator.replay(graph).unwrap();
    emulator.download(out, &mut bytes).unwrap();
    assert!(bytes.chunks(4).all(|b| b == 6u32.to_le_bytes()));
    assert!(emulator.seconds(before, emulator.event().unwrap()).unwrap() > 0.0);
}

#[test]
fn blocks_on_many_threads_give_the_same_bits() {
    // Each thread runs a chain of roundings of its own, longer in some blocks than in others.
    let text = format!(
        "{HEADER}.visible .entry k(.param .u64 out) {{
            .reg .pred %p<3>; .reg .b32 %r<20>; .reg .f32 %f<9>; .reg .b64 %d<9>; .shared .align 4 .b8 s[256];
            ld.param.u64 %d0, [out]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x;
            mad.lo.u32 %r3, %r2, 64, %r1; cvt.rn.f32.u32 %f1, %r3; mov.f32 %f2, 0f3F8CCCCD;
            and.b32 %r4, %r2, 15; mad.lo.u32 %r4, %r4, 40, 40;
        L:  fma.rn.f32 %f1, %f1, %f2, %f2; sqrt.rn.f32 %f1, %f1;
            add.s32 %r4, %r4, -1; setp.ne.s32 %p1, %r4, 0; @%p1 bra L;
            mov.u32 %r5, s; shl.b32 %r6, %r1, 2; add.s32 %r7, %r5, %r6; st.shared.f32 [%r7], %f1; bar.sync 0;
            xor.b32 %r8, %r6, 132; add.s32 %r9, %r5, %r8; ld.shared.f32 %f3, [%r9]; add.f32 %f1, %f1, %f3;
            mul.wide.u32 %d1, %r3, 4; add.s64 %d2, %d0, %d1; st.global.f32 [%d2], %f1; ret;
        }}"
    );
    let run = |threads: usize| {
        let emulator = Emulator { threads, ..Emulator::new() };
        let module = emulator.load("test", &text).unwrap();
        let function = emulator.function(module, "k").unwrap();
        let out = emulator.alloc(4 * 64 * 300).unwrap();
        let config = Config { grid: [300, 1, 1], block: [64, 1, 1], smem_bytes: 0 };
        emulator.launch(&function, &config, &out.to_le_bytes()).unwrap();
        let mut bytes = vec![0; 4 * 64 * 300];
        emulator.download(out, &mut bytes).unwrap();
        (bytes, emulator.meter())
    };
    let alone = run(1);
    assert!(alone.0.chunks(256).all(|block| block.iter().any(|&b| b != 0)));
    for threads in [2, 5, 16] {
        assert_eq!(run(threads), alone);
    }
}
