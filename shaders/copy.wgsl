// The elements of a view in row-major order.
//
// Bindings: x with any strides, out contiguous, both of one dtype.
//
// Algorithm: an invocation writes 16 bytes of the result. A view that is one run from an aligned place is read by whole
// vectors, any other one element by element; neighbouring dimensions that it walks in one run are merged.
//
// Budget: about 20 registers, no workgroup memory. Bound: memory.

fn quad_bits(i: u32) -> vec4<u32> { return view_bits(i); }
