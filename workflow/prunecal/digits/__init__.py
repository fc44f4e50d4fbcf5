"""The embedded study's images and questions: scans of handwritten digits on canvases."""
