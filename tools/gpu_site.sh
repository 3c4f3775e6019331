# Sourced by scripts that run on a machine with a GPU and without a network, which has Python with
# PyTorch, JAX, transformers and peft: keras, keras-hub and what they need are carried there.
KEPT=${KEPT:-$HOME/.cache/keras-mpt-study}
PYTHON=${PYTHON:-python3}

# Fills .gpu/wheels, where there is a network. Further packages are arguments, and PYTHON_THERE is
# the version of that machine's Python.
pack_wheels() {
    mkdir -p .gpu/wheels
    "$PYTHON" -m pip download -q --no-deps --only-binary=:all: --dest .gpu/wheels \
        --python-version "${PYTHON_THERE:-3.12}" --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        -c constraints.txt \
        keras keras-hub namex optree kagglehub==1.0.2 kagglesdk==0.1.28 grain array-record etils \
        portpicker "$@"
}

# There: a folder with what .gpu/wheels holds, made once, goes in front of PYTHONPATH with the tree.
use_wheels() {
    local site=$KEPT/site
    mkdir -p "$KEPT"
    if [ -d .gpu/wheels ] && [ ! -d "$site" ]; then
        rm -rf "$site.new"
        "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site.new" \
            .gpu/wheels/*.whl
        mv "$site.new" "$site"
    fi
    export PYTHONPATH=$PWD:$site${PYTHONPATH:+:$PYTHONPATH}
}
