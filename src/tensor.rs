//! A tensor: storage, layout, dtype, format and its place on the tape. Data only; arithmetic lives in `ops`.

use crate::backend::cpu::MappedBytes;
use crate::device::{Device, Storage};
use crate::dtype::{DType, Elem, Format, Quant};
use crate::error::{Error, Result};
use crate::layout::{Layout, Shape};
use std::fmt;
use std::sync::Arc;

/// An immutable array on a device. Clones and views share its memory.
#[derive(Clone)]
pub struct Tensor {
    storage: Arc<Storage>,
    layout: Layout,
    dtype: DType,
    format: Format,
    node: Option<Place>,
}

/// A place on the tape: a step and the number of one of its results.
pub(crate) type Place = (Arc<Node>, u8);

/// A step of the tape: which tensors it was computed from and how gradients go back through it.
pub struct Node {
    /// For each operand, where it came from.
    pub(crate) parents: Vec<Option<Place>>,
    /// How many results the step has.
    pub(crate) outputs: u8,
    /// `None` for a leaf: a tensor whose gradient is wanted.
    pub(crate) backward: Option<Box<dyn Backward>>,
}

impl Node {
    pub(crate) fn step(parents: Vec<Option<Place>>, outputs: u8, backward: impl Backward + 'static) -> Arc<Node> {
        Arc::new(Node { parents, outputs, backward: Some(Box::new(backward)) })
    }
}

/// How gradients of a step's results become gradients of its operands.
pub trait Backward: Send + Sync {
    /// One gradient (or none) per result in, one (or none) per operand out.
    fn backward(&self, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>>;
}

impl Drop for Node {
    /// A long tape is taken apart in a loop: dropping parents recursively would exhaust the stack.
    fn drop(&mut self) {
        let mut pending: Vec<Arc<Node>> = self.parents.drain(..).flatten().map(|(node, _)| node).collect();
        while let Some(node) = pending.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                pending.extend(node.parents.drain(..).flatten().map(|(node, _)| node));
            }
        }
    }
}

impl Tensor {
    /// A tensor with the given values, in row-major order.
    ///
    /// # Errors
    /// The number of values is not the shape's, or memory is short.
    pub fn from_slice<T: Elem>(device: &Device, values: &[T], shape: &[usize]) -> Result<Tensor> {
        Tensor::from_bytes(device, bytemuck::cast_slice(values), T::DTYPE, shape)
    }

    /// A tensor from the bytes of its elements (little endian, row-major).
    ///
    /// # Errors
    /// The number of bytes is not the shape's, or memory is short.
    pub fn from_bytes(device: &Device, bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor> {
        Tensor::copied(device, bytes, dtype, Format::Plain, Shape::new(shape)?)
    }

    fn copied(device: &Device, bytes: &[u8], dtype: DType, format: Format, shape: Shape) -> Result<Tensor> {
        let tensor = Tensor::empty(device, dtype, format, shape)?;
        tensor.check_bytes(bytes.len())?;
        tensor.storage.upload(0, bytes)?;
        Ok(tensor)
    }

    /// A tensor over a part of a mapped file, read in place where the device can and the bytes are aligned, else
    /// copied.
    ///
    /// # Errors
    /// The number of bytes is not the shape's in this format, a row ends within a quantised block (or blocks are not of
    /// u8), or memory is short.
    pub fn from_mapped(
        device: &Device,
        bytes: MappedBytes,
        dtype: DType,
        format: Format,
        shape: &[usize],
    ) -> Result<Tensor> {
        let shape = Shape::new(shape)?;
        if let Format::Blocks(quant) = format
            && !(dtype == DType::U8 && shape.rows().1.is_multiple_of(quant.block_values()))
        {
            let why = format!("{quant:?} takes u8 and rows of whole blocks of {} values", quant.block_values());
            return Err(Error::View { view: "blocks", shape: format!("{dtype} {shape}"), why });
        }
        if !(bytes.as_ptr() as usize).is_multiple_of(dtype.bytes()) {
            return Tensor::copied(device, &bytes, dtype, format, shape);
        }
        let (len, copy) = (bytes.len(), bytes.clone());
        let Some(storage) = device.map(bytes) else {
            return Tensor::copied(device, &copy, dtype, format, shape);
        };
        let tensor = Tensor::of(storage, Layout::contiguous(shape), dtype, format);
        tensor.check_bytes(len)?;
        Ok(tensor)
    }

    /// Rows of quantised blocks from their bytes: u8 [.., bytes of a row] as [.., values of a row], sharing its memory.
    ///
    /// # Errors
    /// Not contiguous bytes, or a row is not of whole blocks.
    pub fn as_blocks(&self, quant: Quant) -> Result<Tensor> {
        let rows = self.shape().last().copied().unwrap_or(0);
        let sound = self.dtype == DType::U8 && self.format == Format::Plain && self.layout.is_contiguous();
        if !sound || self.shape().is_empty() || !rows.is_multiple_of(quant.block_bytes()) {
            let why = format!("takes contiguous u8 whose rows are blocks of {} bytes", quant.block_bytes());
            return Err(Error::View { view: quant.name(), shape: self.to_string(), why });
        }
        self.with_rows(rows / quant.block_bytes() * quant.block_values(), Format::Blocks(quant))
    }

    /// The bytes of quantised blocks [.., values of a row]: plain u8 [.., bytes of a row], sharing its memory.
    ///
    /// # Errors
    /// The tensor is not in [`Format::Blocks`].
    pub fn as_block_bytes(&self) -> Result<Tensor> {
        let (Format::Blocks(quant), Some(&k)) = (self.format, self.shape().last()) else {
            let why = "it is not in quantised blocks".into();
            return Err(Error::View { view: "blocks' bytes", shape: self.to_string(), why });
        };
        self.with_rows(quant.row_bytes(k), Format::Plain)
    }

    /// The same bytes in rows of another extent.
    fn with_rows(&self, extent: usize, format: Format) -> Result<Tensor> {
        let mut dims = self.shape().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = extent;
        }
        let layout = Layout { offset: self.layout.offset, ..Layout::contiguous(Shape::new(&dims)?) };
        Ok(Tensor { format, ..self.with_layout(layout) })
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// The shape is too large, or memory is short.
    pub fn zeros(device: &Device, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let tensor = Tensor::empty(device, dtype, Format::Plain, Shape::new(shape)?)?;
        // Memory may be recycled.
        tensor.storage.clear(0, tensor.bytes())?;
        Ok(tensor)
    }

    /// Memory for a kernel to write: holds arbitrary values until then.
    pub(crate) fn empty(device: &Device, dtype: DType, format: Format, shape: Shape) -> Result<Tensor> {
        let bytes = elements(format, &shape).checked_mul(dtype.bytes());
        let bytes = bytes.ok_or(Error::Memory { device: device.backend().into(), bytes: usize::MAX })?;
        Ok(Tensor::of(device.alloc(bytes)?, Layout::contiguous(shape), dtype, format))
    }

    fn of(storage: Storage, layout: Layout, dtype: DType, format: Format) -> Tensor {
        Tensor { storage: Arc::new(storage), layout, dtype, format, node: None }
    }

    fn check_bytes(&self, have: usize) -> Result<()> {
        if have == self.bytes() {
            return Ok(());
        }
        Err(Error::View {
            view: "values",
            shape: format!("{} {}", self.dtype, self.layout.shape),
            why: format!("needs {} bytes, got {have}", self.bytes()),
        })
    }

    /// The extents.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// Extents, strides and offset.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// How the elements are arranged.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The device that holds it.
    pub fn device(&self) -> &Device {
        &self.storage.device
    }

    /// The number of elements of its shape.
    pub fn count(&self) -> usize {
        self.layout.shape.count()
    }

    /// The elements in memory: the shape's, or those of a packed format with its padding.
    pub fn elements(&self) -> usize {
        elements(self.format, &self.layout.shape)
    }

    /// The bytes of its elements.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bytes()
    }

    /// The values on the host, in row-major order (for a packed format: as they lie).
    ///
    /// # Errors
    /// The dtype is not `T`, the tensor is a strided view (copy it with `contiguous` first), or the device fails.
    pub fn to_vec<T: Elem>(&self) -> Result<Vec<T>> {
        let fail = |why: String| Error::View { view: "values", shape: self.to_string(), why };
        if self.dtype != T::DTYPE {
            return Err(fail(format!("read as {}; cast it first", T::DTYPE)));
        }
        if !self.layout.is_contiguous() {
            return Err(fail("it is a strided view; make it contiguous first".into()));
        }
        let mut values = vec![<T as bytemuck::Zeroable>::zeroed(); self.elements()];
        self.storage.download(self.layout.offset * self.dtype.bytes(), bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// The bytes on the host, as they lie.
    ///
    /// # Errors
    /// The tensor is a strided view, or the device fails.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        if !self.layout.is_contiguous() {
            let why = "it is a strided view; make it contiguous first".into();
            return Err(Error::View { view: "bytes", shape: self.to_string(), why });
        }
        let mut bytes = vec![0; self.bytes()];
        self.storage.download(self.layout.offset * self.dtype.bytes(), &mut bytes)?;
        Ok(bytes)
    }

    /// The same elements under another layout of the same storage, off the tape.
    pub(crate) fn with_layout(&self, layout: Layout) -> Tensor {
        Tensor { storage: self.storage.clone(), layout, dtype: self.dtype, format: self.format, node: None }
    }

    /// Tells the system that a mapped tensor's pages will not be needed soon, so that they need not stay in memory. They
    /// come back from the file when somebody reads them.
    pub fn release_pages(&self) {
        self.storage.release_pages();
    }

    /// The same values, off the tape.
    pub fn detach(&self) -> Tensor {
        self.with_layout(self.layout)
    }

    /// The same values as a leaf of the tape, so that `backward` gives its gradient.
    pub fn with_grad(&self) -> Tensor {
        let leaf = Node { parents: Vec::new(), outputs: 1, backward: None };
        self.detach().with_node(Arc::new(leaf), 0)
    }

    /// Whether operations on it are recorded.
    pub fn has_node(&self) -> bool {
        self.node.is_some()
    }

    pub(crate) fn node(&self) -> Option<&Place> {
        self.node.as_ref()
    }

    pub(crate) fn with_node(mut self, node: Arc<Node>, output: u8) -> Tensor {
        self.node = Some((node, output));
        self
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// For writing in place.
    ///
    /// # Errors
    /// Somebody else holds the storage (a clone or a view), it is a mapped file, or the tensor is on the tape.
    pub fn as_mut(&mut self) -> Result<TensorMut<'_>> {
        let aliased = |why| Err(Error::Aliased { what: format!("{} {}", self.dtype, self.layout.shape), why });
        if self.node.is_some() {
            return aliased("the tape needs its values");
        }
        if self.storage.is_mapped() {
            return aliased("it is a mapped file");
        }
        let (layout, dtype, format) = (self.layout, self.dtype, self.format);
        match Arc::get_mut(&mut self.storage) {
            Some(storage) => Ok(TensorMut { storage, layout, dtype, format }),
            None => {
                Err(Error::Aliased { what: format!("{dtype} {}", layout.shape), why: "a clone or a view shares it" })
            }
        }
    }
}

fn elements(format: Format, shape: &Shape) -> usize {
    let (n, k) = shape.rows();
    format.elements(n, k)
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `f32 2x3 on cpu`, with strides and format where they matter.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} on {:?}", self.dtype, self.layout.shape, self.device())?;
        if !self.layout.is_contiguous() {
            write!(f, ", strides {:?}", self.layout.strides())?;
        }
        if self.format != Format::Plain {
            write!(f, ", {}", self.format)?;
        }
        Ok(())
    }
}

/// The right to write into a tensor's memory; exists only while nobody else holds it.
pub struct TensorMut<'a> {
    storage: &'a mut Storage,
    layout: Layout,
    dtype: DType,
    format: Format,
}

impl TensorMut<'_> {
    /// The extents.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn storage(&self) -> &Storage {
        self.storage
    }

    /// A part of one dimension.
    ///
    /// # Errors
    /// The range does not lie inside.
    pub fn slice(&mut self, dim: usize, range: std::ops::Range<usize>) -> Result<TensorMut<'_>> {
        let layout = self.layout.slice(dim, range)?;
        Ok(TensorMut { storage: self.storage, layout, dtype: self.dtype, format: self.format })
    }

    /// The same elements under other extents.
    ///
    /// # Errors
    /// The number of elements differs, or a strided part does not allow it.
    pub fn reshape(&mut self, dims: &[usize]) -> Result<TensorMut<'_>> {
        let layout = self.layout.reshape(dims)?;
        Ok(TensorMut { storage: self.storage, layout, dtype: self.dtype, format: self.format })
    }

    /// Overwrites the values, given in row-major order.
    ///
    /// # Errors
    /// Another dtype or number of values, or a strided part.
    pub fn write<T: Elem>(&mut self, values: &[T]) -> Result<()> {
        if T::DTYPE != self.dtype || values.len() != self.layout.shape.count() || !self.layout.is_contiguous() {
            return Err(Error::View {
                view: "write",
                shape: format!("{} {}", self.dtype, self.layout.shape),
                why: format!("takes as many values, contiguous; got {} {}", values.len(), T::DTYPE),
            });
        }
        self.storage.upload(self.layout.offset * self.dtype.bytes(), bytemuck::cast_slice(values))
    }
}
