pub fn sum(_: &crate::Tensor, _: usize) -> crate::Result<crate::Tensor> {
    todo!()
}
