"""A Flower app whose updates are summed under masks: task (model and data), client_app, server_app."""
