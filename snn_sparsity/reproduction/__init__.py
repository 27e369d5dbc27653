"""The paper's tables beside the runs, its claim put to the test, and the report of both."""
