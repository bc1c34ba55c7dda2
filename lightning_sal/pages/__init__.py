"""What people look at: overlays, panels, galleries, pages of HTML, and the folder that answers are written to."""
