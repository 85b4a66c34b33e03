"""The link to the learner process: started, called, watched."""
