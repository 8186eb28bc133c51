//! Adapters, the device opened on one, its pipelines, and what went wrong.

use super::launch::Call;
use super::memory::{Buffer, Pool, rounded};
use super::queue::{PARAMS_BYTES, Recorder};
use super::shader::{Compiled, Shader};
use super::{Bind, Caps};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use wgpu::{DeviceType, Features};

/// A device; clones share it.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    info: wgpu::AdapterInfo,
    caps: Caps,
    device: wgpu::Device,
    queue: wgpu::Queue,
    pool: Arc<Pool>,
    /// In place of absent operands: for reading and for writing.
    absent: [wgpu::Buffer; 2],
    params_layout: wgpu::BindGroupLayout,
    params_group: wgpu::BindGroup,
    modules: Mutex<HashMap<usize, wgpu::ShaderModule>>,
    pipelines: Mutex<HashMap<Key, Arc<Pipeline>>>,
    recorder: Mutex<Recorder>,
    /// The first error that no call was there to report: that the device was lost, or a bug of ours.
    trouble: Arc<Mutex<Option<String>>>,
}

/// What a pipeline is compiled from: the kernel's shader, its function, and the constants' values by their bits.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    /// By [`Shader::id`].
    shader: usize,
    entry: &'static str,
    constants: Vec<(&'static str, u64)>,
}

struct Pipeline {
    compiled: Compiled,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// The adapters of this machine, the most able kind first; their order is that of the indices in `wgpu:0`, `wgpu:1`.
fn enumerate(backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    let noop = &mut descriptor.backend_options.noop;
    noop.enable = backends.contains(wgpu::Backends::NOOP);
    // As most large adapters have them, so that every kernel can be compiled.
    (noop.subgroup_min_size, noop.subgroup_max_size) = (Some(32), Some(32));
    let mut adapters = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends));
    adapters.sort_by_key(|a| match a.get_info().device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    });
    adapters
}

fn text(info: &wgpu::AdapterInfo) -> String {
    let driver = [info.driver.as_str(), info.driver_info.as_str()].join(" ");
    format!("{} ({:?}, {})", info.name, info.backend, driver.trim())
}

impl Device {
    /// The adapters that can be opened, each in a line; `wgpu:N` opens the one at place N.
    pub fn adapters() -> Vec<String> {
        enumerate(wgpu::Backends::PRIMARY).iter().map(|a| text(&a.get_info())).collect()
    }

    /// `wgpu` opens the most able adapter, `wgpu:1` one by its place, `wgpu:name` the first whose name contains the word.
    /// `wgpu:noop` checks kernels and runs nothing: for tests where there is no adapter.
    ///
    /// # Errors
    /// There is no such adapter, or its driver refuses.
    pub fn open(name: &str) -> Result<Device> {
        Device::open_within(name, u64::MAX)
    }

    /// As [`open`](Device::open), with bindings of at most so many bytes.
    ///
    /// # Errors
    /// As [`open`](Device::open).
    pub fn open_within(name: &str, binding_bytes: u64) -> Result<Device> {
        let fail = |why: String| Error::Device { device: name.into(), why };
        let adapters = enumerate(match name {
            "wgpu:noop" => wgpu::Backends::NOOP,
            _ => wgpu::Backends::PRIMARY,
        });
        let known: Vec<String> = adapters.iter().map(|a| text(&a.get_info())).collect();
        let wanted = name.split_once(':').map(|(_, which)| which);
        let place = match wanted {
            None | Some("noop") => 0,
            Some(which) => match which.parse::<usize>() {
                Ok(place) => place,
                Err(_) => {
                    let word = which.to_lowercase();
                    known.iter().position(|k| k.to_lowercase().contains(&word)).unwrap_or(usize::MAX)
                }
            },
        };
        let adapter = adapters.into_iter().nth(place).ok_or_else(|| match known.as_slice() {
            [] => fail("there is no adapter: no driver for Vulkan, Metal or DirectX 12 answers".into()),
            known => fail(format!("no such adapter; there are: {}", known.join(", "))),
        })?;
        Device::on(&adapter, binding_bytes).map_err(fail)
    }

    /// A device on an adapter with everything that it has; `binding_bytes` may lower the limit of one binding.
    fn on(adapter: &wgpu::Adapter, binding_bytes: u64) -> Result<Device, String> {
        let info = adapter.get_info();
        let matrix_f16 = info.backend == wgpu::Backend::Noop
            || adapter.cooperative_matrix_properties().iter().any(|m| {
                use wgpu::CooperativeScalarType::{F16, F32};
                (m.m_size, m.n_size, m.k_size) == (16, 16, 16) && (m.ab_type, m.cr_type) == (F16, F32)
            });
        let mut wanted = Features::SHADER_F16 | Features::SUBGROUP | Features::TIMESTAMP_QUERY;
        if matrix_f16 {
            wanted |= Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        }
        let features = adapter.features() & wanted;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("lapidary"),
            required_features: features,
            required_limits: adapter.limits(),
            // SAFETY: the one experimental feature asked for is cooperative matrices, whose shaders are ours and keep every
            // load and store of a tile inside of the operands.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| e.to_string())?;

        let trouble = Arc::new(Mutex::new(None));
        let keep = |trouble: &Arc<Mutex<Option<String>>>, why: String| {
            let mut first = trouble.lock().unwrap_or_else(|e| e.into_inner());
            first.get_or_insert(why);
        };
        let kept = trouble.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| keep(&kept, e.to_string())));
        let kept = trouble.clone();
        device.set_device_lost_callback(move |reason, why| keep(&kept, format!("it was lost ({reason:?}): {why}")));

        let limits = device.limits();
        let caps = Caps {
            f16: features.contains(Features::SHADER_F16),
            subgroups: features.contains(Features::SUBGROUP),
            subgroup_size: [info.subgroup_min_size, info.subgroup_max_size],
            matrix_f16,
            timestamps: features.contains(Features::TIMESTAMP_QUERY),
            software: info.device_type == DeviceType::Cpu,
            workgroup_size: limits.max_compute_invocations_per_workgroup,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroups: limits.max_compute_workgroups_per_dimension,
            bindings: limits.max_storage_buffers_per_shader_stage,
            binding_bytes: binding_bytes.min(limits.max_storage_buffer_binding_size),
            buffer_bytes: limits.max_buffer_size,
            // Vectors of 16 bytes are read from every binding.
            binding_alignment: limits.min_storage_buffer_offset_alignment.max(16),
        };
        let recorder = Recorder::new(&device, &queue, caps.timestamps, caps.software);
        let params_layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("parameters"),
            entries: &[layout_entry(0, wgpu::BufferBindingType::Uniform, true)],
        });
        let params_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("parameters"),
            layout: &params_layout,
            entries: &[wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &recorder.params_buffer,
                    offset: 0,
                    size: wgpu::BufferSize::new(PARAMS_BYTES),
                }),
            }],
        });
        let absent = ["absent", "unwanted"].map(|label| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: 256,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        });
        Ok(Device(Arc::new(Inner {
            info,
            caps,
            device,
            queue,
            pool: Arc::default(),
            absent,
            params_layout,
            params_group,
            modules: Mutex::default(),
            pipelines: Mutex::default(),
            recorder: Mutex::new(recorder),
            trouble,
        })))
    }

    /// What it is, in one line.
    pub fn describe(&self) -> String {
        let c = &self.0.caps;
        let mut has: Vec<String> = Vec::new();
        if c.f16 {
            has.push("f16".into());
        }
        if c.subgroups {
            let [least, most] = c.subgroup_size;
            has.push(if least == most {
                format!("subgroups of {least}")
            } else {
                format!("subgroups of {least} to {most}")
            });
        }
        if c.matrix_f16 {
            has.push("f16 matrices".into());
        }
        if c.timestamps {
            has.push("clock".into());
        }
        let limits = format!("bindings to {} MiB, buffers to {} MiB", c.binding_bytes >> 20, c.buffer_bytes >> 20);
        format!("{}; {}; {limits}", text(&self.0.info), has.join(", "))
    }

    /// Every shader that was compiled so far, with its constants.
    pub fn compiled(&self) -> Vec<Compiled> {
        self.0.pipelines.lock().unwrap_or_else(|e| e.into_inner()).values().map(|p| p.compiled.clone()).collect()
    }

    pub(super) fn caps(&self) -> &Caps {
        &self.0.caps
    }
    pub(super) fn raw(&self) -> &wgpu::Device {
        &self.0.device
    }
    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }
    pub(super) fn params_group(&self) -> &wgpu::BindGroup {
        &self.0.params_group
    }
    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.0.recorder.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// How often recorded work was handed to the driver.
    pub fn submissions(&self) -> u64 {
        self.recorder().submissions
    }

    /// Bytes of buffers that wait for their next tensor.
    pub fn pooled_bytes(&self) -> usize {
        self.0.pool.bytes() as usize
    }

    pub(super) fn failed(&self, why: String) -> Error {
        Error::Device { device: format!("wgpu:{}", self.0.info.name), why }
    }

    fn too_large(&self, what: String, bytes: u64, limit: u64) -> Error {
        Error::TooLarge { device: format!("wgpu:{}", self.0.info.name), what, bytes, limit }
    }

    /// An error that came by itself, once it has come.
    pub(super) fn healthy(&self) -> Result<()> {
        let trouble = self.0.trouble.lock().unwrap_or_else(|e| e.into_inner());
        trouble.as_ref().map_or(Ok(()), |why| Err(self.failed(why.clone())))
    }

    pub(super) fn alloc(&self, bytes: usize) -> Result<Buffer> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let most = self.0.caps.buffer_bytes;
        if bytes as u64 > most {
            return Err(self.too_large("a buffer".into(), bytes as u64, most));
        }
        let size = rounded(bytes as u64).min(most & !255);
        let raw = match self.0.pool.take(size) {
            Some(raw) => raw,
            None => match self.create(size, usage) {
                Err(Error::Memory { .. }) => {
                    // What waits in the pool, and what is only held by work under way, may be what is missing.
                    self.0.pool.clear();
                    self.synchronise()?;
                    self.create(size, usage)?
                }
                made => made?,
            },
        };
        Ok(Buffer::new(raw, self.0.pool.clone()))
    }

    /// A new buffer.
    pub(super) fn create(&self, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let scope = self.0.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let raw = self.0.device.create_buffer(&descriptor);
        match pollster::block_on(scope.pop()) {
            None => Ok(raw),
            Some(_) => Err(Error::Memory { device: format!("wgpu:{}", self.0.info.name), bytes: size as usize }),
        }
    }

    /// Records a dispatch.
    pub(super) fn run(&self, call: &Call<'_>, grid: [u32; 3]) -> Result<()> {
        let (caps, kernel) = (&self.0.caps, call.label);
        if let Some(&most) = grid.iter().find(|&&n| n > caps.workgroups) {
            return Err(self.failed(format!(
                "{kernel} needs {most} workgroups along a dimension, the adapter takes {}; use a smaller problem",
                caps.workgroups
            )));
        }
        let pipeline = self.pipeline(call)?;
        let mut params: Vec<u32> = Vec::with_capacity(PARAMS_BYTES as usize / 4);
        let mut entries = Vec::with_capacity(call.bindings.len() + 1);
        let faults = call.faults_of.map(|op| self.fault_report(op));
        for (i, bind) in call.bindings.iter().enumerate() {
            let (resource, place) = self.binding(kernel, bind)?;
            params.push(place);
            entries.push(wgpu::BindGroupEntry { binding: i as u32, resource });
        }
        params.resize(params.len().next_multiple_of(4), 0);
        params.extend_from_slice(&call.params);
        if let Some((op, buffer)) = &faults {
            params.push(*op);
            entries.push(wgpu::BindGroupEntry { binding: entries.len() as u32, resource: buffer.as_entire_binding() });
        }
        if params.len() as u64 * 4 > PARAMS_BYTES || entries.len() > caps.bindings as usize {
            return Err(self.failed(format!(
                "{kernel} has {} parameters and {} bindings; {} and {} can be had",
                params.len(),
                entries.len(),
                PARAMS_BYTES / 4,
                caps.bindings
            )));
        }
        let group = self.0.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.layout,
            entries: &entries,
        });
        self.record(&pipeline.pipeline, &group, &params, grid)
    }

    /// The part of a buffer that a binding sees, from an aligned byte on, and the place of its first element there.
    fn binding<'a>(&'a self, kernel: &str, bind: &Bind<'a>) -> Result<(wgpu::BindingResource<'a>, u32)> {
        let Some(buffer) = bind.buffer else {
            return Ok((self.0.absent[usize::from(bind.writes)].as_entire_binding(), 0));
        };
        let at = (bind.offset * bind.element_bytes) as u64;
        let start = at - at % u64::from(self.0.caps.binding_alignment);
        // Whole vectors: buffers are larger than what they hold by at least that much.
        let end = (at + (bind.elements * bind.element_bytes) as u64).max(start + 16).next_multiple_of(16);
        let size = end.min(buffer.raw.size()).saturating_sub(start);
        if size > self.0.caps.binding_bytes || size == 0 {
            return Err(self.too_large(format!("{kernel}: an operand"), size, self.0.caps.binding_bytes));
        }
        let binding = wgpu::BufferBinding { buffer: &buffer.raw, offset: start, size: wgpu::BufferSize::new(size) };
        Ok((wgpu::BindingResource::Buffer(binding), ((at - start) / bind.element_bytes as u64) as u32))
    }

    /// The pipeline of a call, compiled when first asked for.
    fn pipeline(&self, call: &Call<'_>) -> Result<Arc<Pipeline>> {
        let constants = call.constants.iter().map(|&(name, value)| (name, value.to_bits())).collect();
        let key = Key { shader: call.shader.id(), entry: call.entry, constants };
        let pipelines = || self.0.pipelines.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(known) = pipelines().get(&key) {
            return Ok(known.clone());
        }
        // Not under the lock: a compiler may take long, and other threads have other shaders to compile.
        let made = Arc::new(self.compile(call)?);
        Ok(pipelines().entry(key).or_insert(made).clone())
    }

    fn compile(&self, call: &Call<'_>) -> Result<Pipeline> {
        let device = &self.0.device;
        let fail =
            |why: String| self.failed(format!("{} does not compile: {}", call.label, located(call.shader, &why)));
        let module = self.module(call.shader, &fail)?;
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let storage = |i: usize, writes: bool| {
            layout_entry(i as u32, wgpu::BufferBindingType::Storage { read_only: !writes }, false)
        };
        let mut entries: Vec<_> = call.bindings.iter().enumerate().map(|(i, b)| storage(i, b.writes)).collect();
        if call.faults_of.is_some() {
            entries.push(storage(entries.len(), true));
        }
        let layout = device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(call.label), entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(call.label),
            bind_group_layouts: &[Some(&layout), Some(&self.0.params_layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(call.label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(call.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &call.constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        match pollster::block_on(scope.pop()) {
            None => {
                let (shader, entry, constants) = (call.shader, call.entry, call.constants.clone());
                Ok(Pipeline { compiled: Compiled { kernel: call.label, shader, entry, constants }, pipeline, layout })
            }
            Some(e) => Err(fail(e.to_string())),
        }
    }

    /// A shader's module, read and checked when first asked for.
    fn module(&self, shader: &Shader, fail: &dyn Fn(String) -> Error) -> Result<wgpu::ShaderModule> {
        let mut modules = self.0.modules.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(known) = modules.get(&shader.id()) {
            return Ok(known.clone());
        }
        let source = wgpu::ShaderSource::Wgsl(shader.source()?.into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(shader.name), source };
        let scope = self.0.device.push_error_scope(wgpu::ErrorFilter::Validation);
        // SAFETY: the shaders are ours. They index by sizes that `run` has checked against the bindings, and check what
        // they read from operands (ids, lengths) before they index by it; their loops end by counting.
        let module =
            unsafe { self.0.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        if let Some(e) = pollster::block_on(scope.pop()) {
            return Err(fail(e.to_string()));
        }
        modules.insert(shader.id(), module.clone());
        Ok(module)
    }
}

/// A message of the shader compiler with lines of the files instead of those of the joined text.
fn located(shader: &Shader, message: &str) -> String {
    let place = message.split("wgsl:").nth(1).and_then(|t| t.split(':').next()?.parse().ok());
    place.map_or_else(|| message.into(), |line: usize| format!("{} ({message})", shader.place(line)))
}

fn layout_entry(binding: u32, ty: wgpu::BufferBindingType, dynamic: bool) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: dynamic, min_binding_size: None },
        count: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_device_is_an_error() {
        let device = Device::open("wgpu:noop").unwrap();
        let buffer = device.alloc(64).unwrap();
        device.upload(&buffer, 0, &[1; 64]).unwrap();
        device.synchronise().unwrap();
        device.raw().destroy();
        let outcome = device.upload(&buffer, 0, &[1; 64]).and_then(|()| device.synchronise());
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("wgpu:"), "{error}");
    }
}
