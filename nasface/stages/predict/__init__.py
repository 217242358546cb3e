"""Find faces and their landmarks in images and videos."""
