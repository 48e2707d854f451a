class ClientError(Exception):
    """The client asked for what it may not have; it gets the code."""

    def __init__(self, code):
        super(ClientError, self).__init__(code)
        self.code = code
