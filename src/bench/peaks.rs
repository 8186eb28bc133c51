//! The limits of a device, measured: what kernels' times are held against.

use crate::backend::Backend;
use crate::backend::cpu::simd::Isa;
use crate::backend::cpu::{self, Cpu};
use crate::backend::cuda::{self, Cuda};
use crate::backend::wgpu::{self, Wgpu};
use crate::cost::Cost;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// Measured limits of a device.
#[derive(Clone, Debug)]
pub struct Peaks {
    /// Threads that the figures are for; 0 for a GPU.
    pub threads: usize,
    /// Bits of the widest vectors; 0 where the compiler chose them, and on a GPU.
    pub fma_bits: usize,
    /// f32 multiply-adds, floating-point operations per second.
    pub fma_flops: f64,
    /// The same with operands from L1 (see [`probe::fma_flops_from_l1`](crate::backend::cpu::probe::fma_flops_from_l1)), if it is
    /// measured.
    pub fma_flops_from_l1: Option<f64>,
    /// Products of bf16 if the device has them, and what they are by: `"bf16 dot"` or `"bf16 matrix"`.
    pub bf16_flops: Option<(&'static str, f64)>,
    /// f16 matrix products, if the device has them.
    pub f16_flops: Option<f64>,
    /// Dot products of bytes, if the device has them.
    pub byte_flops: Option<f64>,
    /// Reading memory: the size up to which a working set (of all threads) lives in a level, and the bytes per second;
    /// smallest level first.
    pub read: Vec<(&'static str, usize, f64)>,
    /// `None` on a GPU.
    pub pool: Option<PoolCost>,
}

/// What it costs to start a loop on all threads of the CPU and to see its end.
#[derive(Clone, Copy, Debug)]
pub struct PoolCost {
    pub threads: usize,
    /// Microseconds, one loop after another.
    pub awake_us: f64,
    /// Microseconds, after a pause in which the threads fell asleep.
    pub asleep_us: f64,
}

impl PoolCost {
    /// Measures it in a few hundredths of a second; `None` on a GPU.
    pub fn measure(device: &Device) -> Option<PoolCost> {
        device.as_cpu().map(PoolCost::of_cpu)
    }

    fn of_cpu(cpu: &cpu::Device) -> PoolCost {
        let [awake_us, asleep_us] = cpu::probe::launch_seconds(cpu).map(|s| s * 1e6);
        PoolCost { threads: cpu.pool().threads(), awake_us, asleep_us }
    }
}

/// What limits a problem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// The least possible seconds.
    pub seconds: f64,
    /// `"fma"`, `"bf16 dot"`, `"bf16 matrix"`, `"f16 matrix"`, `"byte dot"` or a level of memory.
    pub by: &'static str,
}

impl Peaks {
    /// Measures a device; takes about two seconds.
    ///
    /// # Errors
    /// The device fails.
    pub fn measure(device: &Device) -> Result<Peaks> {
        match (device.as_cpu(), device.as_wgpu(), device.as_cuda()) {
            (Some(cpu), ..) => Ok(Peaks::of_cpu(cpu)),
            (_, Some(wgpu), _) => Peaks::of_wgpu(wgpu),
            (.., Some(cuda)) => Peaks::of_cuda(cuda),
            _ => Err(Error::Device { device: device.backend().into(), why: "has no probes".into() }),
        }
    }

    fn of_cpu(cpu: &cpu::Device) -> Peaks {
        use cpu::probe;
        let threads = cpu.pool().threads();
        let [_, l2, l3] = Cpu::caps(cpu).cache_bytes;
        // Large enough that little of it stays in the last level from one pass to the next.
        let dram_bytes = (2 * l3).clamp(256 << 20, 1 << 30) / threads;
        let read = |bytes: usize| probe::read_bytes_per_second(cpu, bytes);
        let mut levels = vec![("L2", l2 * threads, read(l2 / 2))];
        // A guest of a large processor has the size of the last level for itself on paper only: what 16 MiB are read at is no
        // measure of 128.
        let (small, large) = (16 << 20, 128 << 20);
        // What is larger than three quarters of the last level does not stay in it from one pass to the next.
        let all_l3 = l3.max(l2 * threads);
        let lives_in_l3 = all_l3 / 4 * 3;
        if all_l3 > large {
            levels.push(("L3", 4 * small, read(small / threads)));
            levels.push(("L3_128M", lives_in_l3, read(large / threads)));
        } else {
            levels.push(("L3", lives_in_l3, read((l3 / 2).min(small) / threads)));
        }
        levels.push(("DRAM", usize::MAX, read(dram_bytes)));
        Peaks {
            threads,
            fma_bits: match Cpu::caps(cpu).isa {
                Isa::Avx512 => 512,
                Isa::Avx2 => 256,
                Isa::Portable => 0,
            },
            fma_flops: probe::fma_flops(cpu),
            fma_flops_from_l1: Some(probe::fma_flops_from_l1(cpu)),
            bf16_flops: probe::bf16_flops(cpu),
            f16_flops: None,
            byte_flops: probe::byte_flops(cpu),
            read: levels,
            pool: Some(PoolCost::of_cpu(cpu)),
        }
    }

    /// An adapter does not tell the sizes of its caches: what 2 MiB are read at stands for problems up to that size.
    fn of_wgpu(device: &wgpu::Device) -> Result<Peaks> {
        use crate::backend::wgpu::probe;
        let caps = Wgpu::caps(device);
        let (cached, large) = (2 << 20, if caps.software { 64 << 20 } else { 512 << 20 });
        let large = large.min(caps.binding_bytes as usize);
        Ok(Peaks {
            threads: 0,
            fma_bits: 0,
            fma_flops: probe::fma_flops(device)?,
            fma_flops_from_l1: None,
            bf16_flops: None,
            f16_flops: probe::matrix_f16_flops(device)?,
            byte_flops: None,
            read: vec![
                ("cache", cached, probe::read_bytes_per_second(device, cached)?),
                ("memory", usize::MAX, probe::read_bytes_per_second(device, large)?),
            ],
            pool: None,
        })
    }

    /// Matrix products are those of `mma.sync`, which is what the kernels use; newer devices have faster instructions.
    fn of_cuda(device: &cuda::Device) -> Result<Peaks> {
        use crate::backend::cuda::probe;
        let caps = Cuda::caps(device);
        let (l2, large) = if caps.emulated { (1 << 18, 1 << 20) } else { (caps.l2_bytes as usize, 2 << 30) };
        Ok(Peaks {
            threads: 0,
            fma_bits: 0,
            fma_flops: probe::fma_flops(device)?,
            fma_flops_from_l1: None,
            bf16_flops: Some(("bf16 matrix", probe::bf16_flops(device)?)),
            f16_flops: Some(probe::f16_flops(device)?),
            byte_flops: None,
            read: vec![
                // Half of it: on large devices the other half is behind a slower link.
                ("L2", l2 / 2, probe::read_bytes_per_second(device, l2 / 2)?),
                ("memory", usize::MAX, probe::read_bytes_per_second(device, large)?),
            ],
            pool: None,
        })
    }

    /// The time below which no kernel can go: the larger of arithmetic and traffic.
    pub fn bound(&self, cost: Cost, products: Products) -> Bound {
        let special = match products {
            Products::Bf16 => self.bf16_flops,
            Products::F16 => self.f16_flops.map(|flops| ("f16 matrix", flops)),
            // Activations are pairs of bytes.
            Products::Bytes => self.byte_flops.map(|flops| ("byte dot", flops / 2.0)),
            Products::F32 => None,
        };
        let (by, flops) = special.unwrap_or(("fma", self.fma_flops));
        let arithmetic = Bound { seconds: cost.flops as f64 / flops, by };
        let level = self.read.iter().find(|(_, up_to, _)| cost.bytes() <= *up_to as u64);
        let traffic = level.map(|&(by, _, rate)| Bound { seconds: cost.bytes() as f64 / rate, by });
        match traffic {
            Some(traffic) if traffic.seconds > arithmetic.seconds => traffic,
            _ => arithmetic,
        }
    }

    /// As text, one limit a line.
    pub fn table(&self) -> String {
        let threads = if self.threads > 0 { format!(", {} threads", self.threads) } else { String::new() };
        let mut out = format!("peaks{threads}:  fma f32 {:.1} GFLOP/s", self.fma_flops / 1e9);
        if let Some(flops) = self.fma_flops_from_l1 {
            out.push_str(&format!(" ({:.1} from L1)", flops / 1e9));
        }
        if let Some((name, bf16)) = self.bf16_flops {
            out.push_str(&format!(",  {name} {:.1} GFLOP/s", bf16 / 1e9));
        }
        if let Some(f16) = self.f16_flops {
            out.push_str(&format!(",  f16 matrix {:.1} GFLOP/s", f16 / 1e9));
        }
        if let Some(bytes) = self.byte_flops {
            out.push_str(&format!(",  byte dot {:.1} GOP/s", bytes / 1e9));
        }
        for (name, _, rate) in &self.read {
            out.push_str(&format!(",  {name} read {:.1} GB/s", rate / 1e9));
        }
        if let Some(pool) = self.pool {
            out.push_str(&format!(",  pool {:.2} us, asleep {:.0} us", pool.awake_us, pool.asleep_us));
        }
        out
    }

    /// As JSON lines, with the names that the roofline probe of other libraries' benches has.
    pub fn lines(&self) -> Vec<Value> {
        let line = |case: String, dtype: &str, gflops: Option<f64>, gbs: Option<f64>| {
            json!({
                "peer": "lapidary", "version": env!("CARGO_PKG_VERSION"), "case": case, "threads": self.threads,
                "dtype": dtype, "median_s": null, "min_s": null, "runs": 0, "gflops": gflops, "gbs": gbs,
            })
        };
        let fma = if self.fma_bits > 0 { format!("roof/fma{}", self.fma_bits) } else { "roof/fma".into() };
        let from_l1 = self.fma_flops_from_l1.map(|f| line(format!("{fma}_l1"), "f32", Some(f / 1e9), None));
        let mut lines = vec![line(fma, "f32", Some(self.fma_flops / 1e9), None)];
        lines.extend(from_l1);
        lines.extend(self.bf16_flops.map(|(name, f)| {
            line(format!("roof/{}_bf16", name.trim_start_matches("bf16 ")), "bf16", Some(f / 1e9), None)
        }));
        lines.extend(self.f16_flops.map(|f| line("roof/matrix_f16".into(), "f16", Some(f / 1e9), None)));
        lines.extend(self.byte_flops.map(|f| line("roof/dot_u8".into(), "u8", Some(f / 1e9), None)));
        let read = |(level, _, rate): &(&str, usize, f64)| {
            line(format!("roof/read_{}", level.to_lowercase()), "f32", None, Some(rate / 1e9))
        };
        lines.extend(self.read.iter().map(read));
        lines.extend(self.pool.map(|pool| {
            let mut line = line("roof/pool".into(), "f32", None, None);
            line["pool_us"] = json!(pool.awake_us);
            line["pool_asleep_us"] = json!(pool.asleep_us);
            line
        }));
        lines
    }
}

/// What a problem multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// f32, or what is widened to it.
    F32,
    /// bf16 by bf16.
    Bf16,
    /// f16 by f16.
    F16,
    /// Quantised weights by rounded activations.
    Bytes,
}

impl Products {
    pub(super) fn of(problem: &dyn crate::ops::AnyOp) -> Products {
        let inputs = problem.inputs();
        let [lhs, rhs] = [inputs[0], inputs[1]].map(|o| o.filter(|o| o.present));
        match (lhs, rhs) {
            (Some(lhs), Some(rhs)) if lhs.dtype.is_float() && rhs.format.quant().is_some() => Products::Bytes,
            (Some(lhs), Some(rhs)) if lhs.dtype == DType::BF16 && rhs.dtype == DType::BF16 => Products::Bf16,
            (Some(lhs), Some(rhs)) if lhs.dtype == DType::F16 && rhs.dtype == DType::F16 => Products::F16,
            _ => Products::F32,
        }
    }
}
