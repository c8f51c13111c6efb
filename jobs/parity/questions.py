"""What the tables of parity runs are asked most. Light: the command line reads it."""

from __future__ import annotations

from core.kind import Question

QUESTIONS = {
    "worst": Question(
        "the worst pixel of each backend",
        """select kernel, candidate, device, "case", worst_image, worst_y, worst_x, max_rel, tolerance, job
from parity where role = 'candidate' and {jobs}
qualify row_number() over (partition by kernel, candidate, device order by max_rel desc) = 1
order by max_rel desc""",
    ),
    "drift": Question(
        "how far the outputs of two runs, on one lane or two, are apart",
        """select candidate, "case", batch, channels, height, width, a.output_digest = b.output_digest as same,
       b.output_sum / a.output_sum - 1 as drift, a.max_rel as error_then, b.max_rel as error_now,
       a.lane as lane_then, b.lane as lane_now
from parity a join parity b using (kernel, candidate, role, "case", dtype, device, batch, channels, height, width)
where a.job = {0} and b.job = {1} and role = 'candidate' and a.input_digest = b.input_digest
order by same, abs(drift) desc""",
        jobs=2,
    ),
    "time": Question(
        "the time by lane",
        """select lane, kernel, candidate, device, count(*) as cells, sum(seconds) as seconds,
       sum(first_seconds) as first_calls
from parity where role = 'candidate' and {jobs} group by all order by lane, seconds desc""",
    ),
}
