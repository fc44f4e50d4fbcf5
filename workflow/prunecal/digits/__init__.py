"""Images and questions of the embedded study: scans of handwritten digits on canvases."""
