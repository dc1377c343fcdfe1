"""The report as one page of HTML: its parts as files, its contents as data that only the page's own script reads."""
