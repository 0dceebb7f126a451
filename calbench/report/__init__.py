"""What people look at: tables for the terminal and for papers, figures, and the page."""
