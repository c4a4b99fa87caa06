"""Code around a finished artifact: a small module that an app builds, one kind of app a file."""
