"""From responses to what they are judged by: answers, prompts, masks; and answering without a Trainer."""
