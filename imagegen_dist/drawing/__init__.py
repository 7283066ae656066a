"""What samples look like: grids, films, strips for print, renders of volumes, and their surfaces as meshes."""
