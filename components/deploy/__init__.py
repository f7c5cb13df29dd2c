"""Deploy: makes a challenger champion, or keeps the champion; recovers, rolls back and approves."""
