"""A second task of the sample app, `sample.limited`, for a worker that includes it: tests give it a rate limit."""

from app import app, work

app.task(name="sample.limited", bind=True)(work.run.__func__)
