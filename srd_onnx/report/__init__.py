"""Reports: what an audit, a comparison or one explanation found, as one HTML file and as a PDF."""
