"""The studies of a report, in its order. This is the only module outside a study's package that names it."""

from analysis import boost2018, densenet_transfer, hybrid_densenet, plested2019, protocols_compared, yosinski2014
from analysis.study import Study

STUDIES: tuple[Study, ...] = (
    plested2019.STUDY,
    yosinski2014.STUDY,
    yosinski2014.LOGS,
    densenet_transfer.STUDY,
    boost2018.STUDY,
    hybrid_densenet.STUDY,
    protocols_compared.STUDY,
)
