"""The graphs, one module a deployable pipeline, and their options.

A graph reads from top to bottom like the design. How a stage works belongs to `transforms`, how a
graph is launched to `runners`.
"""

from group_scores.pipelines.group_scores import build
from group_scores.pipelines.options import Job
from group_scores.pipelines.report import ReportJob, build_report
from group_scores.pipelines.verify import VerifyJob, build_verify

__all__ = ["Job", "ReportJob", "VerifyJob", "build", "build_report", "build_verify"]
