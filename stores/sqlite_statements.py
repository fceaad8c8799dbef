"""The SQL of the embedded store."""

from __future__ import annotations

SCHEMA = """
CREATE TABLE IF NOT EXISTS assessment_aggregator (
  user_id TEXT, course_id TEXT, batch_id TEXT, content_id TEXT, attempt_id TEXT,
  created_on INTEGER, last_attempted_on INTEGER, updated_on INTEGER,
  total_score REAL, total_max_score REAL, grand_total TEXT, question TEXT, write_us INTEGER,
  PRIMARY KEY (user_id, course_id, batch_id, content_id, attempt_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS user_activity_agg_cell (
  activity_id TEXT, user_id TEXT, context_id TEXT, map TEXT, key TEXT, value, write_us INTEGER,
  PRIMARY KEY (activity_id, user_id, context_id, map, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 0), us INTEGER);
INSERT OR IGNORE INTO clock VALUES (0, 0);
-- Tables of somebody else's that have these names are found out here.
SELECT last_attempted_on, total_score, write_us FROM assessment_aggregator LIMIT 0;
SELECT activity_id, map, key, value, write_us FROM user_activity_agg_cell LIMIT 0;
"""
ATTEMPT_COLUMNS = (
    "user_id, course_id, batch_id, content_id, attempt_id, created_on, last_attempted_on, "
    "updated_on, total_score, total_max_score, grand_total, question"
)
READ_ATTEMPTS = """
SELECT content_id, attempt_id, last_attempted_on, total_score, total_max_score, write_us,
       created_on IS NOT NULL
FROM assessment_aggregator WHERE user_id = ? AND course_id = ? AND batch_id = ?
"""
WRITE_ATTEMPT = """
INSERT INTO assessment_aggregator (user_id, course_id, batch_id, content_id, attempt_id,
  last_attempted_on, updated_on, total_score, total_max_score, grand_total, question, write_us)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET last_attempted_on = excluded.last_attempted_on,
  updated_on = excluded.updated_on, total_score = excluded.total_score,
  total_max_score = excluded.total_max_score, grand_total = excluded.grand_total,
  question = excluded.question, write_us = excluded.write_us
WHERE excluded.write_us > write_us
"""
WRITE_CREATED = """
UPDATE assessment_aggregator SET created_on = ?
WHERE user_id = ? AND course_id = ? AND batch_id = ? AND content_id = ? AND attempt_id = ?
  AND (created_on IS NULL OR created_on > ?)
"""
WRITE_CELL = """
INSERT INTO user_activity_agg_cell VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET value = excluded.value, write_us = excluded.write_us
WHERE excluded.write_us > write_us
   OR (excluded.write_us = write_us AND excluded.value > value)
"""
TICK = "UPDATE clock SET us = max(us + 1, ?) RETURNING us"
READ_AGGREGATE = """
SELECT map, key, value, write_us FROM user_activity_agg_cell
WHERE activity_id = ? AND user_id = ? AND context_id = ?
"""
READ_ACTIVITY = """
SELECT context_id, map, key, value, write_us FROM user_activity_agg_cell
WHERE activity_id = ? AND user_id = ? AND (? OR map <> 'agg_details') ORDER BY context_id
"""
# What was taken out stays as a cell without a value, so that no older write brings it back.
PRUNE_CELL = """
INSERT INTO user_activity_agg_cell VALUES (?, ?, ?, ?, ?, NULL, ?)
ON CONFLICT DO UPDATE SET value = NULL, write_us = excluded.write_us
WHERE excluded.write_us >= write_us
"""
