"""Networks that are not in SPECS: those that users build, those of Hugging Face, and ready files.

interface      how such a network takes clips and answers: the table [network] of a contract file
contract_file  the contract that a user writes, in TOML
builder        calls the function that builds a user's network
network        any module as a served network; finds its embedding; compares it with its contract
source         a user's module with its weights, as the source of an export
adopted        ready files: ONNX and TorchScript
onnx_file      an ONNX file with the arithmetic around the network; onnx_nodes changes its graph
hugging_face   checkpoints of transformers
fitted         heads that `clipserve fit` has fitted
memory         what a clip takes in the file's runtime; memory_program runs it
"""
